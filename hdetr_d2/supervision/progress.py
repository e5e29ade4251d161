"""How a scheme whose rules change in training learns how far training is."""

import logging
from typing import Protocol, runtime_checkable
from weakref import WeakSet

from torch import nn

from .base import Supervision

logger = logging.getLogger(__name__)

_warned: WeakSet[nn.Module] = WeakSet()


@runtime_checkable
class TakesProgress(Protocol):
    """A model that wants to know how much of training is done."""

    def set_progress(self, progress: float) -> None:
        """Say it, in [0, 1), before each step."""


@runtime_checkable
class HasProgress(Protocol):
    """A model that reads an attribute instead."""

    progress: float


def set_progress(model: nn.Module, progress: float) -> None:
    """Tell a model how much of training is done, if it wants to know.

    Args:
        model: not wrapped in DistributedDataParallel. It has ``set_progress``, or an attribute ``progress``, which is
            then set, or neither.
        progress: in [0, 1).
    """
    if isinstance(model, TakesProgress):
        model.set_progress(progress)
    elif isinstance(model, HasProgress):
        model.progress = progress


def warn_of_no_progress(model: nn.Module, scheme: Supervision) -> None:
    """Say, once for each model, that its scheme never reaches its later rules because nobody sets progress.

    Nothing is said where there are none.
    """
    if model in _warned or not any(0.0 < part < 1.0 for part in scheme.changes_at):
        return
    _warned.add(model)
    logger.warning(
        "%s changes its rules at %s of training, but nobody says how much of it is done, so that it stays as at the "
        "beginning; call model.set_progress(step / max_steps) before each step, as hdetr_d2.engine.Trainer does",
        type(scheme).__name__,
        ", ".join(f"{part:.0%}" for part in scheme.changes_at),
    )

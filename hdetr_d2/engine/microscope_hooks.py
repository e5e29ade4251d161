"""``train.microscope``: recording of what is matched with what."""

from __future__ import annotations

import os

from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..losses import SetCriterion
from ..microscope import MatchRecorder
from ..microscope.recorder import FOLDER
from .errors import ConfigError


class RecordMatches(HookBase):
    """Let a recorder look on at every step.

    Args:
        criterion: whose matching it is.
        output_dir: of the run.
    """

    def __init__(self, *, criterion: SetCriterion, output_dir: str) -> None:
        self.criterion = criterion
        self.recorder = MatchRecorder(os.path.join(output_dir, FOLDER), rank=comm.get_rank())

    def before_train(self) -> None:
        """A resumed run records anew what came after its checkpoint."""
        if comm.is_main_process():
            self.recorder.forget_after(self.trainer.start_iter)
        comm.synchronize()
        self.criterion.observer = self.recorder

    def before_step(self) -> None:
        """Say which step it is."""
        self.recorder.iteration = self.trainer.iter

    def write(self, done: int) -> None:
        """Write what was seen; every process calls this before a checkpoint is saved."""
        self.recorder.flush(done)

    def after_train(self) -> None:
        """Look no longer."""
        self.criterion.observer = None


def record_matches(model: nn.Module, output_dir: str) -> RecordMatches:
    """The hook for a model.

    Raises:
        ConfigError: its losses are not of ``SetCriterion``.
    """
    for module in model.modules():
        if isinstance(module, SetCriterion):
            return RecordMatches(criterion=module, output_dir=output_dir)
    raise ConfigError(
        f"train.microscope=True: {type(model).__name__} has no SetCriterion to look at; set train.microscope=False"
    )

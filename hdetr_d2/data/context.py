"""What an augmentation may know besides its image: when in training it runs, and the rest of the dataset.

Everything here follows from a sample's position in the stream, so that a resumed run and a run with another number of
workers or processes augments alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Record = dict[str, Any]
Range = tuple[float, float]

ALWAYS = (0.0, float("inf"))
"""All epochs. Such windows are from the first number on and before the second."""


def as_range(values: Sequence[float], name: str, *, lowest: float = 0.0, highest: float = float("inf")) -> Range:
    """``values`` as a pair.

    Args:
        name: of the argument, for the message.
        lowest, highest: what both numbers must be within.

    Raises:
        ValueError: not two ascending numbers, or outside of the limits.
    """
    if len(values) != 2 or not lowest <= values[0] <= values[1] <= highest:
        raise ValueError(
            f"{name} must be [low, high] with {lowest:g} <= low <= high <= {highest:g}, not {list(values)}"
        )
    return float(values[0]), float(values[1])


@dataclass(frozen=True, kw_only=True)
class SampleContext:
    """Of one sample in training.

    Args:
        epoch: optimiser steps done by epoch length, a fraction; 0 is the start.
        dataset: all records, for augmentations that take further images.
    """

    epoch: float = 0.0
    dataset: Sequence[Record] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """Of one optimiser step, the same in every process.

    Args:
        seed: of the run.
        step: optimiser steps done before.
        epoch: of the step, a fraction.
    """

    seed: int
    step: int
    epoch: float

    def generator(self, purpose: int) -> np.random.Generator:
        """A new generator for one purpose in this step.

        Args:
            purpose: at least 1, another one for each kind of decision.
        """
        # two words seed samples and epochs elsewhere; a third that is not 0 keeps apart from both
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.step, purpose]))


class ContextMapper(ABC):
    """A dataset mapper that the training loader gives the context too. Any other callable gets the record only."""

    @abstractmethod
    def __call__(self, record: Record, context: SampleContext | None = None) -> Record:
        """Map one dataset dict; files that could not be used are listed under "skipped_files"."""

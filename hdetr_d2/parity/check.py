"""Compared quantities and how much they may differ."""

from dataclasses import dataclass, replace

from torch import Tensor

from .archive import Archive
from .errors import ParityError

OUTPUT_TOLERANCE = 2e-4  # absolute
PIXEL_TOLERANCE = 1e-2  # absolute, boxes in pixels
LOSS_TOLERANCE = 1e-4  # relative
GRADIENT_TOLERANCE = 1e-3  # relative
GRADIENT_FLOOR = 1e-5  # a gradient that is zero in theory holds rounding noise
ZERO_FLOOR = 1e-4  # of one that the file names as zero in theory
NOISE_TOLERANCE = 1e-6  # absolute, noised boxes in [0, 1]


@dataclass(frozen=True)
class Check:
    """One compared quantity: its largest difference and what it may be."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return self.difference <= self.tolerance

    def within(self, prefix: str) -> "Check":
        """The same under a longer name."""
        return replace(self, name=prefix + self.name)

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        return f"{verdict} {self.name:<60} {self.difference:.3e} (at most {self.tolerance:.0e})"


def largest(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference of two tensors of one shape; NaN where either has NaN."""
    return (ours.detach().double() - theirs.double()).abs().max().item() if ours.numel() else 0.0


def relative(ours: float, theirs: float, floor: float = 0.0) -> float:
    """Relative difference, 0 where the absolute one is below ``floor``."""
    difference = abs(ours - theirs)
    return 0.0 if difference <= floor else difference / max(abs(theirs), 1e-12)


def compare(key: str, ours: Tensor, data: Archive, tolerance: float) -> Check:
    """Our tensor against the file's of the same key.

    Raises:
        ParityError: the file has none, or one of another shape.
    """
    theirs = data[key]
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{key} has shape {tuple(theirs.shape)}, but the model that config.json describes gives {tuple(ours.shape)}"
        )
    return Check(key, largest(ours, theirs), tolerance)

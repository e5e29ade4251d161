"""The one error of data that cannot be used, whoever reads it."""

from __future__ import annotations

from hdetr_d2.errors import UserError

__all__ = ["DatasetError", "GroundTruthError", "UnusableImageError"]


class DatasetError(UserError, ValueError):
    """The dataset is not what the program can use; the message names file, item, fault and remedy."""


GroundTruthError = DatasetError
"""The name that evaluation has for it: training and evaluation read a file alike and refuse it alike."""


class UnusableImageError(DatasetError):
    """One image file cannot be used: missing, corrupt, or of another size than its record says."""

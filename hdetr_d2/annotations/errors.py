"""The one error of data that cannot be used, whoever reads it."""

from __future__ import annotations

from hdetr_d2.errors import DatasetError, UnusableImageError

__all__ = ["DatasetError", "GroundTruthError", "UnusableImageError"]

GroundTruthError = DatasetError
"""The name that evaluation has for it: training and evaluation read a file alike and refuse it alike."""

"""Losses of sets of predictions."""

from .boxes import box_losses
from .classification import ClassificationLoss, Positives, SigmoidFocalLoss
from .criterion import SetCriterion

__all__ = ["ClassificationLoss", "Positives", "SetCriterion", "SigmoidFocalLoss", "box_losses"]

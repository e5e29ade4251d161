"""Losses of sets of predictions."""

from .boxes import box_losses
from .classification import ClassificationLoss, Positives, SigmoidFocalLoss
from .criterion import SetCriterion
from .iou_aware import IoUAwareBCE, MatchabilityAwareLoss, VarifocalLoss
from .softmax import SoftmaxCrossEntropy

__all__ = [
    "ClassificationLoss",
    "IoUAwareBCE",
    "MatchabilityAwareLoss",
    "Positives",
    "SetCriterion",
    "SigmoidFocalLoss",
    "SoftmaxCrossEntropy",
    "VarifocalLoss",
    "box_losses",
]

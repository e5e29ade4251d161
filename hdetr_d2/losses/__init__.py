"""Losses of sets of predictions."""

from .boxes import box_losses
from .classification import ClassificationLoss, Positives, SigmoidFocalLoss
from .criterion import SetCriterion
from .equalized import EqualizedFocalLoss
from .federated import FederatedLoss
from .iou_aware import IoUAwareBCE, MatchabilityAwareLoss, VarifocalLoss
from .seesaw import SeesawLoss
from .softmax import SoftmaxCrossEntropy

__all__ = [
    "ClassificationLoss",
    "EqualizedFocalLoss",
    "FederatedLoss",
    "IoUAwareBCE",
    "MatchabilityAwareLoss",
    "Positives",
    "SeesawLoss",
    "SetCriterion",
    "SigmoidFocalLoss",
    "SoftmaxCrossEntropy",
    "VarifocalLoss",
    "box_losses",
]

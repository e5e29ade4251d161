"""Losses of sets of predictions."""

from .boxes import box_losses
from .classification import ClassificationLoss, Positives, SigmoidFocalLoss
from .criterion import SetCriterion
from .distribution import DistributionLoss
from .equalized import EqualizedFocalLoss
from .federated import FederatedLoss
from .iou_aware import IoUAwareBCE, MatchabilityAwareLoss, VarifocalLoss
from .positive_counts import PositiveCounter
from .seesaw import SeesawLoss
from .softmax import SoftmaxCrossEntropy

__all__ = [
    "ClassificationLoss",
    "DistributionLoss",
    "EqualizedFocalLoss",
    "FederatedLoss",
    "IoUAwareBCE",
    "MatchabilityAwareLoss",
    "PositiveCounter",
    "Positives",
    "SeesawLoss",
    "SetCriterion",
    "SigmoidFocalLoss",
    "SoftmaxCrossEntropy",
    "VarifocalLoss",
    "box_losses",
]

"""Classification by one softmax over classes and "no object"."""

import torch
from torch import Tensor

from hdetr_d2.arguments import check_positive
from hdetr_d2.registry import LOSS_REGISTRY

from .classification import ClassificationLoss, Positives


@LOSS_REGISTRY.register()
class SoftmaxCrossEntropy(ClassificationLoss):
    """Cross entropy in which "no object" counts less (DETR, section 3.1 and its code).

    The last channel is "no object". A layer's value is the weighted mean over the queries of all images: it is divided
    by the sum of their weights in this process, as PyTorch's weighted cross entropy is, and not by the number of
    targets.

    Args:
        no_object_weight: weight of a query without target; matched ones weigh 1.
    """

    normalised = True

    def __init__(self, *, no_object_weight: float = 0.1) -> None:
        super().__init__()
        check_positive(self, no_object_weight=no_object_weight)
        self.no_object_weight = no_object_weight

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says; ``logits`` are (L, R, K + 1)."""
        layers, rows, channels = logits.shape
        matched = positives.layer, positives.row
        label = torch.full((layers, rows), channels - 1, dtype=torch.int64, device=logits.device)
        label[matched] = positives.label
        weight = logits.new_full((layers, rows), self.no_object_weight)
        weight[matched] = 1.0
        if positives.absent is not None:
            weight = weight.masked_fill(positives.absent, 0.0)
        loss = logits.logsumexp(-1) - logits.gather(-1, label[..., None])[..., 0]
        return (weight * loss).sum(1) / weight.sum(1)

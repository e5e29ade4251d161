"""Classification losses over queries, of which some are matched."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Positives:
    """The matched queries of a stack of layers.

    Args:
        layer: (P,) int64, index of the layer.
        row: (P,) int64, index of the query among all queries of the batch.
        label: (P,) int64, class of its target.
        iou: (P,) IoU of prediction and target, detached; None where the loss does not ask for it.
    """

    layer: Tensor
    row: Tensor
    label: Tensor
    iou: Tensor | None = None


class ClassificationLoss(nn.Module, ABC):
    """A loss of class logits; ``needs_iou`` says whether it wants to know how well the boxes fit."""

    needs_iou = False

    @abstractmethod
    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """Sum the loss of each layer.

        Args:
            logits: (L, R, K) of R queries, those of all images, in L layers.
            positives: which of them are matched; all others are background.

        Returns:
            (L,), not yet divided by the number of targets.
        """


class _NegativeFocal(torch.autograd.Function):
    """Sum over rows and columns of the focal loss of background, keeping only the logits for backward.

    Written out because autograd would keep four tensors of the size of the logits, which for the encoder's 22k
    proposals times many classes is most of the memory of the losses.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, alpha: float, gamma: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(logits)
        ctx.alpha, ctx.gamma = alpha, gamma
        return ((1 - alpha) * logits.sigmoid() ** gamma * F.softplus(logits)).sum((1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (logits,) = ctx.saved_tensors
        p = logits.sigmoid()
        slope = (1 - ctx.alpha) * p**ctx.gamma * (ctx.gamma * (1 - p) * F.softplus(logits) + p)
        return grad[:, None, None] * slope, None, None


class SigmoidFocalLoss(ClassificationLoss):
    """Focal loss over independent sigmoids (Lin et al., ICCV 2017), as in Deformable DETR.

    Args:
        alpha: weight of positives; negatives have ``1 - alpha``.
        gamma: exponent of the focusing factor.
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says: all entries as background, then the matched ones corrected."""
        total = _NegativeFocal.apply(logits, self.alpha, self.gamma)
        picked = logits[positives.layer, positives.row, positives.label]
        p = picked.sigmoid()
        as_positive = self.alpha * (1 - p) ** self.gamma * F.softplus(-picked)
        as_negative = (1 - self.alpha) * p**self.gamma * F.softplus(picked)
        return total.index_add(0, positives.layer, as_positive - as_negative)

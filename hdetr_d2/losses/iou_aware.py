"""Classification losses whose target is how well the box fits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hdetr_d2.registry import LOSS_REGISTRY

from .classification import ClassificationLoss, Positives, background_loss


class _IoUAwareLoss(ClassificationLoss):
    """What the losses of this file have in common; each takes all entries as background, then corrects the matched."""

    needs_iou = True

    def _picked(self, logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor]:
        """Logits and IoU (P,) of the matched entries."""
        if positives.iou is None:
            raise ValueError(f"{type(self).__name__} needs the IoU of each matched query with its target")
        picked = logits[positives.layer, positives.row, positives.label]
        return picked, positives.iou.detach().to(logits.dtype)


def _soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy with a target in [0, 1], entry by entry."""
    return F.softplus(logits) - target * logits


@LOSS_REGISTRY.register()
class VarifocalLoss(_IoUAwareLoss):
    """Cross entropy towards the IoU, weighted by the IoU (Zhang et al., CVPR 2021), as in RT-DETR.

    A matched entry of IoU q costs ``q * BCE(p, q)``; any other ``alpha * p ** gamma * BCE(p, 0)``, whose weight is a
    constant for backward.

    Args:
        alpha: weight of background.
        gamma: exponent that makes easy background count little.
    """

    def __init__(self, *, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says."""
        total = background_loss(logits, weight=self.alpha, gamma=self.gamma, detach=True)
        picked, iou = self._picked(logits, positives)
        as_positive = iou * _soft_cross_entropy(picked, iou)
        as_negative = self.alpha * picked.detach().sigmoid() ** self.gamma * F.softplus(picked)
        return total.index_add(0, positives.layer, as_positive - as_negative)


@LOSS_REGISTRY.register()
class MatchabilityAwareLoss(_IoUAwareLoss):
    """Cross entropy towards a power of the IoU, unweighted, so that poor matches count too (DEIM, section 3.2).

    A matched entry of IoU q costs ``BCE(p, q ** gamma)``; any other ``p ** gamma * BCE(p, 0)``, whose weight is a
    constant for backward.

    Args:
        gamma: both exponents; 1.5 in DEIM.
        alpha: weight of background besides; None, as in DEIM's recipes, is 1.
    """

    def __init__(self, *, gamma: float = 1.5, alpha: float | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says."""
        weight = 1.0 if self.alpha is None else self.alpha
        total = background_loss(logits, weight=weight, gamma=self.gamma, detach=True)
        picked, iou = self._picked(logits, positives)
        as_positive = _soft_cross_entropy(picked, iou**self.gamma)
        as_negative = weight * picked.detach().sigmoid() ** self.gamma * F.softplus(picked)
        return total.index_add(0, positives.layer, as_positive - as_negative)


@LOSS_REGISTRY.register()
class IoUAwareBCE(_IoUAwareLoss):
    """Cross entropy towards a mean of score and IoU (Align-DETR, section 3.1), as in DAC-DETR and Mr. DETR-Align.

    The target of a matched entry is ``t = max(p ** alpha * q ** (1 - alpha), 0.01)``, a constant for backward. Of
    several queries of one target, the one with the r-th largest t (from 0) learns ``t * exp(-r / decay)``. Any other
    entry costs ``p ** gamma * BCE(p, 0)``.

    Args:
        alpha: exponent of the score.
        gamma: exponent that makes easy background count little.
        decay: of the target by rank; 1.5 in DAC-DETR and Mr. DETR-Align. None is no ranking. Without effect where each
            target has one query.
        decay_boxes: the box losses that decay with it: ``"none"``, ``"giou"`` (Mr. DETR-Align) or ``"all"`` (DAC-DETR).
        floor: least target before ranking.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        decay: float | None = None,
        decay_boxes: str = "none",
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        if decay_boxes not in ("none", "giou", "all"):
            raise ValueError(f'IoUAwareBCE: decay_boxes must be "none", "giou" or "all", got {decay_boxes!r}')
        if decay is not None and decay <= 0:
            raise ValueError(f"IoUAwareBCE: decay must be positive, or None for no ranking, got {decay}")
        self.alpha = alpha
        self.gamma = gamma
        self.decay = decay
        self.decay_boxes = decay_boxes
        self.floor = floor

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says."""
        total = background_loss(logits, weight=1.0, gamma=self.gamma)
        picked, iou = self._picked(logits, positives)
        quality = self._quality(picked, iou)
        decay = self._decay(quality, positives)
        target = quality if decay is None else quality * decay
        as_positive = _soft_cross_entropy(picked, target)
        as_negative = picked.sigmoid() ** self.gamma * F.softplus(picked)
        return total.index_add(0, positives.layer, as_positive - as_negative)

    def _quality(self, picked: Tensor, iou: Tensor) -> Tensor:
        return (picked.detach().sigmoid() ** self.alpha * iou ** (1 - self.alpha)).clamp(min=self.floor)

    def _decay(self, quality: Tensor, positives: Positives) -> Tensor | None:
        if self.decay is None or positives.target is None:
            return None
        return torch.exp(-rank_in_target(quality, positives.layer, positives.target) / self.decay)

    def box_weights(self, logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor] | None:
        """As the base class says."""
        if self.decay_boxes == "none":
            return None
        decay = self._decay(self._quality(*self._picked(logits, positives)), positives)
        if decay is None:
            return None
        return (decay if self.decay_boxes == "all" else torch.ones_like(decay)), decay


def rank_in_target(quality: Tensor, layer: Tensor, target: Tensor) -> Tensor:
    """Place of each match among those of its target in its layer, by falling quality.

    Args:
        quality: (P,).
        layer, target: (P,) int64.

    Returns:
        (P,) int64 from 0; of equal quality the earlier match comes first.
    """
    by_quality = quality.argsort(descending=True, stable=True)
    by_target = by_quality[target[by_quality].argsort(stable=True)]
    order = by_target[layer[by_target].argsort(stable=True)]
    layer, target = layer[order], target[order]
    place = torch.arange(len(order), device=order.device)
    starts = torch.ones_like(place, dtype=torch.bool)
    starts[1:] = (layer[1:] != layer[:-1]) | (target[1:] != target[:-1])
    first = place.masked_fill(~starts, 0).cummax(0).values
    return torch.empty_like(order).scatter_(0, order, place - first)

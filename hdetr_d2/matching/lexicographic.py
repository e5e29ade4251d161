"""Matching of predictions that come in an order, by what matters first (Stewart et al., CVPR 2016)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hdetr_d2.arguments import check_choice, check_positive
from hdetr_d2.registry import MATCHER_REGISTRY

from .hungarian import HungarianMatcher

Order = Literal["free", "first_k", "fixed"]
"""Which predictions of a sequence a target may get; see ``LexicographicCost``."""


@dataclass(frozen=True, kw_only=True)
class LexicographicCost:
    """Cost of a prediction that is the r-th of its sequence and a target, as one number (section 2.2).

    Args:
        order: ``"free"`` (the paper's L_hung): first, as few predictions as possible whose centre is outside their
            target; then, predictions as early as possible; last, a small L1 distance. ``"first_k"`` (L_firstk): the M
            targets get the first M predictions, by L1 distance. ``"fixed"`` (L_fix): target i gets prediction i.
        largest: L1 distance that no pair exceeds, in the unit of the boxes; farther is no worse.
    """

    order: Order = "free"
    largest: float = 1e4

    def __post_init__(self) -> None:
        check_choice(self, Order, order=self.order)
        check_positive(self, largest=self.largest)

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """Cost of every pair.

        Args:
            logits, labels: not read.
            boxes: (..., N, 4) cxcywh in any unit, in the order of the sequence.
            target_boxes: (..., M, 4) cxcywh in the same unit; leading dimensions as those of ``boxes``, or none.

        Returns:
            (..., N, M) float64; infinite for pairs that are not allowed or whose prediction is not finite.
        """
        del logits, labels
        target_boxes = target_boxes.double()[..., None, :, :]
        between = (boxes.double()[..., None, :] - target_boxes).abs()
        distance = between.sum(-1)
        impossible = ~distance.isfinite()
        distance = distance.clamp(max=self.largest)
        queries, targets = distance.shape[-2:]
        rank = torch.arange(queries, device=boxes.device)[:, None]
        if self.order == "fixed":
            distance = torch.zeros_like(distance)
            impossible = impossible | (rank != torch.arange(targets, device=boxes.device))
        elif self.order == "first_k":
            impossible = impossible | (rank >= targets)
        else:
            outside = (between[..., :2] > 0.5 * target_boxes[..., 2:]).any(-1)
            # Of min(N, M) pairs, no sum of what matters less reaches one unit of what matters more.
            pairs = min(queries, targets)
            unit_of_rank = pairs * self.largest + 1
            distance = distance + unit_of_rank * (rank + (pairs * queries + 1) * outside)
        return distance.masked_fill(impossible, torch.inf)


@MATCHER_REGISTRY.register()
class LexicographicMatcher(HungarianMatcher):
    """One-to-one matching of a sequence of predictions (Stewart et al., section 2.2).

    Args:
        order, largest: of the cost; ``largest`` as large as distances can be, no larger: sums of costs are exact to
            about ``1e-16 * N**2 * M**2 * largest``.
    """

    def __init__(self, *, order: Order = "free", largest: float = 1e4) -> None:
        super().__init__(cost=LexicographicCost(order=order, largest=largest))

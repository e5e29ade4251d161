"""Equalized focal loss."""

import math
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from hdetr_d2.arguments import check_positive, check_whole, check_within
from hdetr_d2.distributed import sum_over_ranks
from hdetr_d2.registry import LOSS_REGISTRY
from hdetr_d2.structures import BatchedTargets

from .classification import ClassificationLoss, Positives, SigmoidFocalLoss, background_loss, check_same_classes


@LOSS_REGISTRY.register()
class EqualizedFocalLoss(ClassificationLoss):
    """Focal loss that focuses the more, the less gradient a class gets from its objects (EFL, Li et al., CVPR 2022).

    Class j has the exponent gamma_j = gamma + scale * (1 - g_j) and the weight gamma_j / gamma, where g_j in [0, 1] is
    the sum of the absolute gradients of its positive logits so far, divided by that of its negative ones. A frequent
    class, with g = 1, has focal loss; one whose objects are drowned in background ignores easy background and learns
    more from what is hard.

    The gradients are those of the class loss for the logits, divided by the number of matched queries, in closed form;
    the weight of the loss and the scheme of supervision, which are the same for both sums, are left out. g changes
    between steps only.

    Args:
        num_classes: K.
        scale: the paper's s.
        alpha, gamma: of the focal loss; gamma must be positive.

    Attributes:
        positive_gradient, negative_gradient: (K,) float64, the two sums over training so far and all processes.
        balance: (K,) float64, g of this step. All three are saved in checkpoints.
    """

    observes = True
    positive_gradient: Tensor
    negative_gradient: Tensor
    balance: Tensor

    def __init__(self, *, num_classes: int, scale: float = 8.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        check_whole(self, 1, num_classes=num_classes)
        check_within(self, 0.0, math.inf, scale=scale)
        check_positive(self, gamma=gamma)
        self.scale = scale
        self.focal = SigmoidFocalLoss(alpha=alpha, gamma=gamma)
        self.register_buffer("positive_gradient", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("negative_gradient", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("balance", torch.ones(num_classes, dtype=torch.float64))

    def check(self, *, num_classes: int) -> None:
        """As the base class says."""
        check_same_classes(self, len(self.balance), num_classes)

    def begin_step(self, targets: BatchedTargets) -> Tensor | None:
        """All classes; takes the gradients of earlier steps into account."""
        del targets
        ratio = self.positive_gradient / self.negative_gradient.clamp(min=1e-10)
        self.balance.copy_(torch.where(self.negative_gradient > 0, ratio.clamp(max=1.0), 1.0))
        return None

    def of_proposals(self) -> ClassificationLoss:
        """As the base class says: with one class there is nothing to balance."""
        return self.focal

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says."""
        alpha = self.focal.alpha
        exponent, weight = self._factors(logits, positives)
        picked = logits[positives.layer, positives.row, positives.label]
        own_exponent, own_weight = exponent[positives.label], weight[positives.label]
        total = background_loss(logits, weight=(1 - alpha) * weight, gamma=exponent)
        p = picked.sigmoid()
        as_positive = alpha * own_weight * (1 - p) ** own_exponent * F.softplus(-picked)
        as_negative = (1 - alpha) * own_weight * p**own_exponent * F.softplus(picked)
        return total.index_add(0, positives.layer, as_positive - as_negative)

    def _factors(self, logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor]:
        """Exponent and weight (C') of each column."""
        gamma = self.focal.gamma
        balance = self.balance if positives.classes is None else self.balance[positives.classes]
        exponent = (gamma + self.scale * (1.0 - balance)).to(logits.dtype)
        return exponent, exponent / gamma

    @torch.no_grad()
    def observe(self, logits: Tensor, positives: Positives) -> None:
        """As the base class says: adds the gradients to the sums."""
        label, columns, alpha = positives.label, positives.classes, self.focal.alpha
        exponent, weight = self._factors(logits, positives)
        picked = logits[positives.layer, positives.row, label]
        # One layer after another: temporaries of the size of all logits would be most of the memory of the loss.
        background = reduce(add, (background_slope(layer, exponent).sum(0).double() for layer in logits))
        zeros, own_exponent = exponent.new_zeros(len(exponent), dtype=torch.float64), exponent[label]
        own = zeros.index_add(0, label, background_slope(picked, own_exponent).double())
        objects = zeros.index_add(0, label, background_slope(-picked, own_exponent).double())
        sums = torch.stack([alpha * weight * objects, (1 - alpha) * weight * (background - own).clamp(min=0.0)])
        if columns is not None:  # each process has its own
            sums = sums.new_zeros(2, len(self.balance)).index_copy(1, columns, sums)
        count = sums.new_full((2, 1), float(len(label)))
        totals = sum_over_ranks(torch.cat([sums, count], dim=1))
        positive, negative = totals[:, :-1] / totals[:, -1:].clamp(min=1.0)
        self.positive_gradient += positive
        self.negative_gradient += negative


def background_slope(logits: Tensor, gamma: Tensor) -> Tensor:
    """Derivative of ``p ** gamma * -log(1 - p)`` for the logit, not negative.

    Of the mirrored logit it is that of ``(1 - p) ** gamma * -log(p)`` with the sign turned.
    """
    p = logits.sigmoid()
    return p**gamma * (p + gamma * (1 - p) * F.softplus(logits))

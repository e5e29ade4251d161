"""Seesaw loss over sigmoids."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hdetr_d2.arguments import check_positive, check_whole, check_within
from hdetr_d2.distributed import sum_over_ranks
from hdetr_d2.registry import LOSS_REGISTRY
from hdetr_d2.structures import BatchedTargets

from .classification import ClassificationLoss, Positives, SigmoidFocalLoss, check_same_classes


@LOSS_REGISTRY.register()
class SeesawLoss(ClassificationLoss):
    """Objects of frequent classes punish rare classes less (Wang et al., CVPR 2021, section 3), over sigmoids.

    The published loss is a softmax in which class j of an object of class i is weighted by S_ij = M_ij * C_ij:

    - mitigation M_ij = min(1, N_j / N_i) ** p: the rarer j is beside i, the less i pushes it down;
    - compensation C_ij = max(1, s_j / s_i) ** q: but a class that scores higher than the right one is pushed down more.

    Models here score classes independently, so S_ij weighs the focal loss of class j being absent in a query that is
    matched to an object of class i. Queries without object are left as focal loss has them: the paper's background, of
    its separate objectness, is in no relation of frequency to a class either. With p = q = 0 it is focal loss.

    Args:
        num_classes: K.
        p, q: the paper's.
        alpha, gamma: of the focal loss.
        min_score: least s_i, against division by nearly nothing; the authors' 0.01.

    Attributes:
        counts: (K,) int64, N: objects of each class in training so far, of all processes; saved in checkpoints.
    """

    counts: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        p: float = 0.8,
        q: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        min_score: float = 0.01,
    ) -> None:
        super().__init__()
        check_whole(self, 1, num_classes=num_classes)
        check_within(self, 0.0, math.inf, p=p, q=q)
        check_positive(self, min_score=min_score)
        self.p = p
        self.q = q
        self.focal = SigmoidFocalLoss(alpha=alpha, gamma=gamma)
        self.min_score = min_score
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def check(self, *, num_classes: int) -> None:
        """As the base class says."""
        check_same_classes(self, len(self.counts), num_classes)

    def begin_step(self, targets: BatchedTargets) -> Tensor | None:
        """All classes; counts the objects of the step."""
        # no bincount, which waits for the device to tell how many it must count
        counts = torch.zeros_like(self.counts).index_add(0, targets.labels, torch.ones_like(targets.labels))
        self.counts += sum_over_ranks(counts)
        return None

    def of_proposals(self) -> ClassificationLoss:
        """As the base class says: with one class there is nothing to balance."""
        return self.focal

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the base class says: focal loss, then the background of matched queries weighted anew."""
        focal = self.focal
        picked = logits[positives.layer, positives.row]
        extra = self._factors(picked.detach(), positives) - 1.0
        as_background = (1 - focal.alpha) * picked.sigmoid() ** focal.gamma * F.softplus(picked)
        return focal(logits, positives).index_add(0, positives.layer, (extra * as_background).sum(-1))

    def _factors(self, logits: Tensor, positives: Positives) -> Tensor:
        """S (P, C'), with 1 at the class of the object itself."""
        own = positives.label[:, None]
        counts = self.counts if positives.classes is None else self.counts[positives.classes]
        counts = counts.clamp(min=1).to(logits.dtype)
        mitigation = (counts / counts[own]).clamp(max=1.0) ** self.p
        scores = logits.sigmoid()
        compensation = (scores / scores.gather(1, own).clamp(min=self.min_score)).clamp(min=1.0) ** self.q
        return (mitigation * compensation).scatter(1, own, 1.0)

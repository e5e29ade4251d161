"""Matching by quality: every target is given as many queries as find it best, the best ones."""

import math

import torch
from torch import Tensor

from hdetr_d2.arguments import check_whole, check_within
from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.registry import MATCHER_REGISTRY

from .base import StagedMatcher
from .solver import Assignment


@MATCHER_REGISTRY.register()
class TopKMatcher(StagedMatcher):
    """The one-to-many assigner of DAC-DETR (section 3.3), MS-DETR and Mr. DETR, which got it from DETA.

    The score of a pair is ``iou_weight * IoU + (1 - iou_weight) * p``. A query whose best score reaches the threshold
    votes for the target it has that score with, and so does, below the threshold, a query that is the best of some
    target. A target with c votes is given the min(c, k) queries of the highest score with it, voters or not: a query
    may be given to two targets, and a target whose best query votes for another one may get none.

    Args:
        iou_weight: 0.7 on Deformable DETR, 0.8 on DINO in Mr. DETR.
        threshold: of the score.
        k: most queries of a target.
        max_positives: most votes in an image, first come, first served; None for no limit. The authors draw a quarter
            of the queries at random, always 225 in Mr. DETR; two-stage queries come best proposal first.
        best_last: order pairs by rising score, as MS-DETR does, so that a query that is given twice learns the class of
            the target that it fits best; otherwise by target, as the others do.
    """

    may_repeat = True
    score = "sigmoid"

    def __init__(
        self,
        *,
        iou_weight: float = 0.7,
        threshold: float = 0.4,
        k: int = 6,
        max_positives: int | None = 225,
        best_last: bool = False,
    ) -> None:
        check_within(self, 0.0, 1.0, iou_weight=iou_weight)
        check_within(self, 0.0, math.inf, threshold=threshold)
        check_whole(self, 1, k=k)
        if max_positives is not None:
            check_whole(self, 1, max_positives=max_positives)
        self.iou_weight = iou_weight
        self.threshold = threshold
        self.k = k
        self.max_positives = max_positives
        self.best_last = best_last

    def scores(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """(L, M, N) float32 in [0, 1] of every pair, not finite where a prediction is not; arguments as ``propose``."""
        probability = logits.mT[:, labels].float().sigmoid()
        iou = box_iou(cxcywh_to_xyxy(boxes.float())[:, None], cxcywh_to_xyxy(target_boxes.float())[:, None])
        return self.iou_weight * iou + (1 - self.iou_weight) * probability

    @torch.no_grad()
    def propose(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, ...]:
        """Propose queries for each target.

        Returns:
            Each target's best queries (L, M, k), best first, and their scores, how many of them it is given (L, M), and
            how many queries have no finite score (L,).
        """
        with torch.autocast(device_type=logits.device.type, enabled=False):
            scores = self.scores(logits, boxes, labels, target_boxes)
        finite = scores.isfinite()
        scores = scores.masked_fill(~finite, -1.0)
        best, target = scores.max(dim=1)
        votes = (best >= self.threshold).scatter(1, scores.argmax(dim=2), True) & (best >= 0)
        if self.max_positives is not None:
            votes = votes & (votes.cumsum(1) <= self.max_positives)
        values, queries = scores.topk(min(self.k, scores.shape[2]), dim=2)
        count = torch.zeros_like(queries[..., 0]).scatter_add(1, target, votes.long()).clamp(max=self.k)
        return queries, values, count, (~finite).all(1).sum(1)

    def finish(self, *proposed: Tensor) -> Assignment:
        """As the base class says; pairs by target and falling score, or by rising score."""
        queries, values, count, unmatchable = proposed
        given = torch.arange(queries.shape[1]) < count[:, None]
        rows, columns = queries[given], given.nonzero()[:, 0]
        if self.best_last:
            order = values[given].argsort(stable=True)
            rows, columns = rows[order], columns[order]
        return Assignment(rows, columns, int(unmatchable))

"""Matching by quality: every target is given as many queries as find it best, the best ones."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hdetr_d2.arguments import check_whole, check_within
from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.registry import MATCHER_REGISTRY
from hdetr_d2.structures import offsets_of
from hdetr_d2.transfer import to_device

from .base import StagedMatcher
from .scored import Scored
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

    def propose(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, ...]:
        """Propose queries for each target.

        Returns:
            Each target's best queries (L, M, k), best first, and their scores, how many of them it is given (L, M), and
            how many queries have no finite score (L,).
        """
        image = torch.zeros_like(labels)
        scored = Scored(logits[:, None], boxes[:, None], labels, target_boxes, image, (len(labels),))
        return tuple(x[0] for x in self.propose_batch(scored))

    @torch.no_grad()
    def propose_batch(self, scored: Scored) -> list[Tensor]:
        """As the base class says, with as many targets in each image as the one with most has.

        Returns:
            What ``propose`` returns, of B images: (B, L, M, k) twice, (B, L, M) and (B, L).
        """
        if not sum(scored.counts):
            return []
        place, given = to_device(_padded_places(scored.counts), scored.labels.device)
        with torch.autocast(device_type=scored.logits.device.type, enabled=False):
            scores = self._scores(scored, place)
        possible = scores.isfinite() & given[..., None, None]
        # What is not possible is worse than anything, and what is not there worse than that.
        scores = scores.masked_fill(~possible, -1.0).masked_fill(~given[..., None, None], -2.0)
        best, target = scores.max(dim=1)
        of_layers = given.long()[:, None].expand(-1, target.shape[1], -1)
        found_best = torch.zeros_like(target).scatter_add(2, scores.argmax(3).mT, of_layers)
        votes = ((best >= self.threshold) | (found_best > 0)) & (best >= 0)
        if self.max_positives is not None:
            votes = votes & (votes.cumsum(2) <= self.max_positives)
        values, queries = scores.topk(min(self.k, scores.shape[3]), dim=3)
        none = target.new_zeros(*target.shape[:2], scores.shape[1])
        count = none.scatter_add(2, target, votes.long()).clamp(max=self.k)
        return [queries.transpose(1, 2), values.transpose(1, 2), count, (~possible).all(1).sum(2)]

    def finish_batch(self, proposed: Sequence[Tensor], counts: Sequence[int]) -> list[list[Assignment]]:
        """As the base class says."""
        if not proposed:
            return []
        queries, values, given, unmatchable = proposed
        return [
            [
                self.finish(*one)
                for one in zip(queries[i, :, :m], values[i, :, :m], given[i, :, :m], unmatchable[i], strict=True)
            ]
            for i, m in enumerate(counts)
            if m
        ]

    def _scores(self, scored: Scored, place: Tensor) -> Tensor:
        """(B, M, L, N) float32 in [0, 1] of every pair, not finite where a prediction is not.

        Args:
            scored: of B images.
            place: (B, M) int64, the targets of each.
        """
        image = torch.arange(len(place), device=place.device)[:, None]
        probability = scored.logits[:, image, :, scored.labels[place]].float().sigmoid()
        boxes = cxcywh_to_xyxy(scored.boxes.float()).transpose(0, 1)[:, None]
        target_boxes = cxcywh_to_xyxy(scored.target_boxes.float())[place][:, :, None, None]
        return self.iou_weight * box_iou(boxes, target_boxes) + (1 - self.iou_weight) * probability

    def finish(self, *proposed: Tensor) -> Assignment:
        """As the base class says; pairs by target and falling score, or by rising score."""
        queries, values, count, unmatchable = proposed
        given = torch.arange(queries.shape[1]) < count[:, None]
        rows, columns = queries[given], given.nonzero()[:, 0]
        if self.best_last:
            order = values[given].argsort(stable=True)
            rows, columns = rows[order], columns[order]
        return Assignment(rows, columns, int(unmatchable))


def _padded_places(counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The targets of each image, (B, M) int64 with M those of the image with most, and which of them there are."""
    column = torch.arange(max(counts))
    given = column < torch.tensor(counts)[:, None]
    return (torch.tensor(offsets_of(counts))[:, None] + column).where(given, 0), given

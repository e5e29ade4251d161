"""What the primary group's last layer predicts around each target, and where no target is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy, generalized_box_iou
from hdetr_d2.matching import MatchingCost

NEAR = 8
"""Queries around a target that are asked which class they see there."""
SHOWN = 32
"""The most confident queries of an image, among which duplicates and unclaimed predictions are looked for."""
UNCLAIMED = 4
"""Predictions without a target that are kept of an image."""
_SAME = 0.7  # IoU of predictions of one object
_CLAIMED = 0.5  # IoU of a prediction with an annotation from which it counts as that of the object


@dataclass(frozen=True)
class Probe:
    """Of M targets and B images; boxes are cxcywh in [0, 1] of the augmented image.

    Args:
        iou: (M,) of the matched prediction and its target; 0 where nothing is matched.
        score: (M,) its score for the target's class.
        box: (M, 4) of it.
        other: (M,) int64, the class under which the target would be cheapest, of all but its own.
        relabelled: (M,) by how much its cost would fall under that class; negative where its own is the cheapest.
        unclaimed_class: (B, U) int64, predictions that no target accounts for, most confident first.
        unclaimed_score: (B, U), 0 where there are no more.
        unclaimed_box: (B, U, 4).
        confidence: (B, 2), the scores of the most confident predictions added up, and those of duplicates among them.
    """

    iou: Tensor
    score: Tensor
    box: Tensor
    other: Tensor
    relabelled: Tensor
    unclaimed_class: Tensor
    unclaimed_score: Tensor
    unclaimed_box: Tensor
    confidence: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """In the order of the arguments, float32 or int64."""
        return [getattr(self, name) for name in self.__dataclass_fields__]


@torch.no_grad()
def probe(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    target_boxes: Tensor,
    image: Tensor,
    query: Tensor,
    cost: MatchingCost,
) -> Probe:
    """Look at a layer's predictions.

    Args:
        logits: (B, N, K), of softmax (B, N, K + 1).
        boxes: (B, N, 4) cxcywh in [0, 1].
        labels: (M,) int64 of all targets of the batch.
        target_boxes: (M, 4).
        image: (M,) int64, whose they are.
        query: (M,) int64, which is matched; -1 for none.
        cost: what pairs cost.
    """
    logits, boxes = logits.detach().float(), boxes.detach().float()
    of_image = cxcywh_to_xyxy(boxes)
    wanted = cxcywh_to_xyxy(target_boxes)[:, None]
    iou = box_iou(of_image[image], wanted) if len(image) else boxes.new_zeros(0, boxes.shape[1])
    matched = query >= 0
    row = query.clamp(min=0)
    found = boxes[image, row]
    score = cost.scores(logits[image, row])[torch.arange(len(row), device=row.device), labels] * matched
    other, relabelled = _relabelled(logits, boxes, labels, target_boxes, image, iou, cost)
    seen = boxes.new_zeros(boxes.shape[:2])
    seen.scatter_reduce_(0, image[:, None].expand(-1, boxes.shape[1]), iou, "amax")
    seen[image[matched], row[matched]] = 1.0
    return Probe(
        iou.gather(1, row[:, None])[:, 0] * matched,
        score,
        found,
        other,
        relabelled,
        *_unclaimed(logits, boxes, of_image, seen, cost),
    )


def _relabelled(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    target_boxes: Tensor,
    image: Tensor,
    iou: Tensor,
    cost: MatchingCost,
) -> tuple[Tensor, Tensor]:
    """What each target would cost under other classes, from the queries that overlap it most."""
    near = iou.topk(min(NEAR, iou.shape[1]), dim=1).indices
    row = image[:, None]
    place = boxes[row, near]
    distance = (place - target_boxes[:, None]).abs().sum(-1)
    giou = generalized_box_iou(cxcywh_to_xyxy(place), cxcywh_to_xyxy(target_boxes)[:, None])
    of_box = cost.l1_weight * distance - cost.giou_weight * giou
    by_class = (cost.class_costs(logits[row, near]) + of_box[..., None]).amin(1)
    own = by_class.gather(1, labels[:, None])[:, 0]
    by_class = by_class.scatter(1, labels[:, None], torch.inf)
    best, other = by_class.min(1)
    return other, (own - best).nan_to_num(0.0, 0.0, 0.0)


def _unclaimed(
    logits: Tensor, boxes: Tensor, corners: Tensor, seen: Tensor, cost: MatchingCost
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The last four fields of a ``Probe``; ``seen`` (B, N) is the IoU with the nearest target, 1 of a matched query."""
    score, label = cost.scores(logits).max(-1)
    shown, index = score.topk(min(SHOWN, score.shape[1]), dim=1)
    label = label.gather(1, index)
    place = corners.gather(1, index[..., None].expand(-1, -1, 4))
    overlap = box_iou(place[:, :, None], place[:, None])
    better = (overlap > _SAME).tril(-1)
    repeated = (better & (label[:, :, None] == label[:, None])).any(-1)
    confidence = torch.stack([shown.sum(1), (shown * repeated).sum(1)], 1)
    alone = (seen.gather(1, index) < _CLAIMED) & ~better.any(-1)
    kept, which = (shown * alone).topk(min(UNCLAIMED, shown.shape[1]), dim=1)
    chosen = index.gather(1, which)
    return label.gather(1, which), kept, boxes.gather(1, chosen[..., None].expand(-1, -1, 4)), confidence

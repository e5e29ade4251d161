"""From predictions to detections."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy, inverse_sigmoid, standing_queries


def top_detections(
    logits: Tensor, boxes: Tensor, num_detections: int, *, score: str = "sigmoid", distinct: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of each image.

    Args:
        logits: (B, n, K), or (B, n, K + 1) with "no object" last where ``score`` is ``"softmax"``.
        boxes: (B, n, 4) cxcywh in [0, 1].
        num_detections: how many, at most n * K, or n with softmax.
        score: ``"sigmoid"``: the best (query, class) pairs, so that a query can give several labels (Deformable
            DETR); ``"softmax"``: every query as the class that it finds likeliest, in the order of the queries; the
            best ones, best first, where there are more than ``num_detections`` (DETR, which keeps them all).
        distinct: the IoU with a better query's box, above which a query has score 0; None for none.

    Returns:
        Scores (B, D), in descending order unless all queries are kept, labels (B, D) int64, boxes (B, D, 4) XYXY in
        parts of the image, not clipped.
    """
    stands = None if distinct is None else standing_queries(logits, boxes, distinct, softmax=score == "softmax")
    if score == "softmax":
        scores, labels = logits.float().softmax(-1)[..., :-1].max(-1)
        if stands is not None:
            scores = scores.masked_fill(~stands, 0.0)
        if num_detections >= scores.shape[1]:
            return scores, labels, cxcywh_to_xyxy(boxes.float())
        scores, query = scores.topk(num_detections, dim=1)
        labels = labels.gather(1, query)
    else:
        scores = logits.float().sigmoid()
        if stands is not None:
            scores = scores.masked_fill(~stands[..., None], 0.0)
        scores = scores.flatten(1)
        scores, index = scores.topk(min(num_detections, scores.shape[1]), dim=1)
        query, labels = index // logits.shape[-1], index % logits.shape[-1]
    chosen = boxes.float().gather(1, query[..., None].expand(-1, -1, 4))
    return scores, labels, cxcywh_to_xyxy(chosen)


def fused_logits(logits: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Class logits of all decoder layers mixed into one, as Mr. DETR's code does at inference.

    Each layer's probability p becomes ``sqrt((p ** 2.001 + q ** 1.853) / 2)``, q being that of the layers before it.

    Args:
        logits: (L, B, n, K), first layer first.
        eps: of the inverse sigmoid at the end.

    Returns:
        (B, n, K), float32.
    """
    first, *others = logits.float().sigmoid().unbind(0)
    mixed = inverse_sigmoid(first, eps).sigmoid()
    for p in others:
        mixed = inverse_sigmoid(((p**2.001 + mixed**1.853) / 2).sqrt(), eps).sigmoid()
    return inverse_sigmoid(mixed, eps)


def to_instances(scores: Tensor, labels: Tensor, boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    """Detections of each image as Detectron2 wants them.

    Args:
        scores, labels, boxes: as ``top_detections`` returns them.
        sizes: (height, width) that is asked for each image, in pixels.

    Returns:
        One ``Instances`` an image with ``pred_boxes`` (XYXY pixels, clipped to the image), ``scores`` and
        ``pred_classes``.
    """
    results = []
    for image_scores, image_labels, image_boxes, (height, width) in zip(scores, labels, boxes, sizes):
        scale = torch.tensor([width, height, width, height], dtype=torch.float32, device=boxes.device)
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(image_boxes * scale)
        if not boxes.is_meta:  # Detectron2 looks whether numbers are finite, which those that are not there cannot say
            instances.pred_boxes.clip((height, width))
        instances.scores = image_scores
        instances.pred_classes = image_labels
        results.append(instances)
    return results

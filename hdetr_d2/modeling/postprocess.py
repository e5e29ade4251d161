"""From predictions to detections."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy


def top_detections(logits: Tensor, boxes: Tensor, num_detections: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best (query, class) pairs of each image (Deformable DETR); a query can give several labels.

    Args:
        logits: (B, n, K).
        boxes: (B, n, 4) cxcywh in [0, 1].
        num_detections: how many, at most n * K.

    Returns:
        Scores (B, D) in descending order, labels (B, D) int64, boxes (B, D, 4) XYXY in parts of the image, not
        clipped.
    """
    num_classes = logits.shape[-1]
    scores = logits.float().sigmoid().flatten(1)
    scores, index = scores.topk(min(num_detections, scores.shape[1]), dim=1)
    query = index // num_classes
    chosen = boxes.float().gather(1, query[..., None].expand(-1, -1, 4))
    return scores, index % num_classes, cxcywh_to_xyxy(chosen)


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
        instances.pred_boxes.clip((height, width))
        instances.scores = image_scores
        instances.pred_classes = image_labels
        results.append(instances)
    return results

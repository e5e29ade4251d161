"""Box arithmetic. Boxes are ``cxcywh`` (centre, width, height) or ``XYXY`` (two corners); every function says which."""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Corners of boxes given by centre and size.

    Args:
        boxes: (..., 4) cxcywh, any unit.

    Returns:
        (..., 4) XYXY in the same unit and dtype.
    """
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Centre and size of boxes given by corners.

    Args:
        boxes: (..., 4) XYXY, any unit.

    Returns:
        (..., 4) cxcywh in the same unit and dtype.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([0.5 * (low + high), high - low], dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of a probability, kept finite at the ends.

    Args:
        x: any shape; clamped to [0, 1].
        eps: smallest numerator and denominator. 1e-5 in Deformable-DETR and H-DETR, 1e-3 in DAB, DN, DINO and detrex;
            it bounds the logits of boxes at the image border, so it is part of what a checkpoint was trained with.

    Returns:
        The same shape and dtype, within +-log(1 / eps).
    """
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=eps) / (1.0 - x).clamp(min=eps))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def _overlap_and_hull(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing area of broadcast XYXY boxes."""
    size = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2])
    size = size.clamp(min=0)
    overlap = size[..., 0] * size[..., 1]
    union = _area(boxes1) + _area(boxes2) - overlap
    hull = torch.maximum(boxes1[..., 2:], boxes2[..., 2:]) - torch.minimum(boxes1[..., :2], boxes2[..., :2])
    hull = hull.clamp(min=0)
    return overlap, union, hull[..., 0] * hull[..., 1]


def _ratio(numerator: Tensor, denominator: Tensor, eps: float = 0.0) -> Tensor:
    # A zero denominator (both boxes are points) gives 0 and, unlike a division under torch.where, a zero gradient.
    denominator = denominator + eps if eps else denominator
    empty = denominator <= 0
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of boxes at the same place of two broadcastable tensors.

    Args:
        boxes1: (..., 4) XYXY, any unit; the same unit as ``boxes2``.
        boxes2: (..., 4) XYXY; broadcast against ``boxes1``.

    Returns:
        (...) in [0, 1], float32 or wider. Two boxes without area give 0.
    """
    overlap, union, _ = _overlap_and_hull(_widen(boxes1), _widen(boxes2))
    return _ratio(overlap, union)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor, *, eps: float = 0.0) -> Tensor:
    """Generalized IoU of boxes at the same place (Rezatofighi et al., CVPR 2019).

    Args:
        boxes1: (..., 4) XYXY, any unit; the same unit as ``boxes2``.
        boxes2: (..., 4) XYXY; broadcast against ``boxes1``, so ``(N, 1, 4)`` and ``(M, 4)`` give all pairs.
        eps: added to the areas of union and hull that are divided by; 1e-6 in the code of DAB-DETR, DN-DETR and DINO.

    Returns:
        (...) in [-1, 1], float32 or wider. A box with negative width or height counts as empty; NaN coordinates give
        NaN, never an exception, so that a diverging model is reported by the loss and not by an assert.
    """
    overlap, union, hull = _overlap_and_hull(_widen(boxes1), _widen(boxes2))
    return _ratio(overlap, union, eps) - _ratio(hull - union, hull, eps)


def _widen(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype == torch.float64 else boxes.float()

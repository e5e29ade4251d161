"""Losses of matched boxes."""

from typing import Protocol

import torch
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy, generalized_box_iou


class BoxLosses(Protocol):
    """What :func:`box_losses` does, compiled or not."""

    def __call__(
        self, boxes: Tensor, target_boxes: Tensor, *, giou_eps: float = 0.0, inside_out: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As the function."""


def box_corners(boxes: Tensor) -> Tensor:
    """Corners of boxes that may be inside out, as distributions of edges can make them.

    Args:
        boxes: (..., 4) cxcywh.

    Returns:
        (..., 4) XYXY; a negative width or height counts as 0.
    """
    return cxcywh_to_xyxy(torch.cat([boxes[..., :2], boxes[..., 2:].clamp(min=0.0)], -1))


def box_losses(
    boxes: Tensor, target_boxes: Tensor, *, giou_eps: float = 0.0, inside_out: bool = False
) -> tuple[Tensor, Tensor]:
    """L1 and generalized-IoU loss of matched pairs (DETR, section 3.1).

    Args:
        boxes: (P, 4) cxcywh in [0, 1].
        target_boxes: (P, 4) cxcywh in [0, 1].
        giou_eps: ``eps`` of ``generalized_box_iou``.
        inside_out: whether widths and heights may be negative.

    Returns:
        The sum of absolute coordinate differences (P,) and ``1 - GIoU`` (P,).
    """
    corners = box_corners if inside_out else cxcywh_to_xyxy
    l1 = (boxes - target_boxes).abs().sum(-1)
    return l1, 1.0 - generalized_box_iou(corners(boxes), cxcywh_to_xyxy(target_boxes), eps=giou_eps)

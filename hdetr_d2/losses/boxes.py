"""Losses of matched boxes."""

from typing import Protocol

from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy, generalized_box_iou


class BoxLosses(Protocol):
    """What :func:`box_losses` does, compiled or not."""

    def __call__(self, boxes: Tensor, target_boxes: Tensor, *, giou_eps: float = 0.0) -> tuple[Tensor, Tensor]:
        """As the function."""


def box_losses(boxes: Tensor, target_boxes: Tensor, *, giou_eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """L1 and generalized-IoU loss of matched pairs (DETR, section 3.1).

    Args:
        boxes: (P, 4) cxcywh in [0, 1].
        target_boxes: (P, 4) cxcywh in [0, 1].
        giou_eps: ``eps`` of ``generalized_box_iou``.

    Returns:
        The sum of absolute coordinate differences (P,) and ``1 - GIoU`` (P,).
    """
    l1 = (boxes - target_boxes).abs().sum(-1)
    return l1, 1.0 - generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes), eps=giou_eps)

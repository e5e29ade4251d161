"""Arithmetic of boxes in NumPy, for annotations and detections (PyTorch's is in hdetr_d2.layers)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pairwise_iou", "xywh_to_xyxy", "xyxy_to_xywh"]

Boxes = NDArray[np.float64]


def xywh_to_xyxy(boxes: NDArray[Any]) -> Boxes:
    """(N, 4) x, y, width, height to (N, 4) XYXY, float64, the same unit."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: NDArray[Any]) -> Boxes:
    """(N, 4) XYXY to (N, 4) x, y, width, height, float64, the same unit."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def pairwise_iou(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """IoU of every pair of boxes, with the arithmetic of COCO's metrics.

    Args:
        boxes: (N, 4) x, y, width, height.
        others: (M, 4), the same unit.

    Returns:
        (N, M) in [0, 1]; 0 for two boxes without area.
    """
    starts = np.maximum(boxes[:, None, :2], others[None, :, :2])
    ends = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    overlap = (ends - starts).clip(0).prod(axis=2)
    union = boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)

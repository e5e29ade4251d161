"""Greedy non-maximum suppression with results of fixed size, for models that suppress inside their graph.

``torch.ops.hdetr_d2.nms_mask`` is compiled for the CPU and for CUDA (csrc/nms), which decide alike; on other devices,
and where nothing is compiled, the PyTorch form runs. None reads a number on the host: a GPU is never waited for.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from ._checks import require

__all__ = ["nms_mask", "nms_mask_reference"]

_SCHEMA = "nms_mask(Tensor boxes, float threshold) -> Tensor"


def nms_mask(boxes: Tensor, threshold: float) -> Tensor:
    """Which boxes remain if each that remains strikes out all worse ones that it overlaps.

    Args:
        boxes: (B, M, 4) XYXY, any unit, best first; used in float32, without gradient.
        threshold: of the IoU, above which a box is struck out.

    Returns:
        (B, M) bool, True where a box remains. Of equal boxes the first one does. Boxes without area, or with NaN among
        their numbers, neither strike out nor are struck out.

    Raises:
        RuntimeError: the shape does not fit.
    """
    boxes = boxes.detach().float()
    _check(boxes)
    return _operator(boxes, threshold)


def nms_mask_reference(boxes: Tensor, threshold: float) -> Tensor:
    """``nms_mask`` in plain PyTorch: (B, M, M) overlaps at once, then one box after another."""
    _check(boxes)
    low, high = boxes.split(2, dim=-1)
    area = (high - low).clamp(min=0).prod(-1)
    shared = torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])
    overlap = shared.clamp(min=0).prod(-1)
    overlaps = overlap / (area[:, :, None] + area[:, None] - overlap) > threshold  # 0 / 0 is not
    count = boxes.shape[1]
    remains = boxes.new_ones(boxes.shape[:2], dtype=torch.bool)
    for index in range(count - 1):
        remains[:, index + 1 :] &= ~(overlaps[:, index, index + 1 :] & remains[:, index, None])
    return remains


def _check(boxes: Tensor) -> None:
    require(boxes.layout == torch.strided, "nms_mask", "boxes", "dense", boxes.layout)
    for holds in (boxes.dim() == 3, boxes.shape[-1] == 4):
        require(holds, "nms_mask", "boxes", "(images, boxes, 4)", boxes.shape)


def _fake(boxes: Tensor, threshold: float) -> Tensor:
    _check(boxes)
    require(boxes.dtype == torch.float32, "nms_mask", "boxes", torch.float32, boxes.dtype)
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def _register() -> Library:
    """Declare the operator where it is not compiled, and give it what is written here. To be kept alive."""
    library = Library("hdetr_d2", "FRAGMENT")
    if not hasattr(torch.ops.hdetr_d2, "nms_mask"):
        library.define(_SCHEMA)
    library.impl("nms_mask", nms_mask_reference, "CompositeExplicitAutograd")
    torch.library.register_fake("hdetr_d2::nms_mask", _fake, lib=library)
    return library


_LIBRARY = _register()
_operator: Any = torch.ops.hdetr_d2.nms_mask

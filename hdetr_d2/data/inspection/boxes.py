"""Boxes that are there twice, and boxes of sizes that are seldom meant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import pairwise_iou, xyxy_to_xywh

from .findings import Finding, found
from .splits import InspectedSplit

SAME = 0.95
"""Two boxes of one class in one image with a larger IoU are one object annotated twice."""

TINY = 4.0
"""Pixels: a box with a shorter side is seldom what was meant."""

WHOLE = 0.98
"""A box of so large a part of the image is about the image rather than an object in it."""

FLAT = 20.0
"""Width by height, or the other way round, of a box that is seldom what was meant."""


def box_findings(split: InspectedSplit) -> list[Finding]:
    """What is odd about the usable boxes of a split."""
    sides = split.boxes[:, 2:] - split.boxes[:, :2]
    areas = split.sizes[split.box_images].prod(axis=1) if len(split.boxes) else np.zeros(0)
    part = np.divide(sides.prod(axis=1), areas, out=np.zeros(len(sides)), where=areas > 0)
    long, short = sides.max(axis=1, initial=0), sides.min(axis=1, initial=np.inf)
    tiny = short < TINY
    flat = ~tiny & (long > FLAT * np.maximum(short, 1e-9))
    name = split.name
    return [
        *found("duplicate-boxes", "hurts", name, "boxes are there twice", _texts(split, duplicates(split))),
        *found(
            "tiny-boxes", "note", name, f"boxes have a side of less than {TINY:g} pixels", _texts(split, _rows(tiny))
        ),
        *found("whole-image-boxes", "note", name, "boxes are the whole image", _texts(split, _rows(part >= WHOLE))),
        *found(
            "flat-boxes",
            "note",
            name,
            f"boxes are more than {FLAT:g} times as long as wide",
            _texts(split, _rows(flat)),
        ),
    ]


def _rows(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(chosen)


def duplicates(split: InspectedSplit) -> NDArray[np.int64]:
    """Rows of boxes that overlap an earlier one of the same image and class by more than `SAME`."""
    key = split.box_images * max(1, len(split.class_names)) + split.box_classes
    order = np.argsort(key, kind="stable")
    xywh = xyxy_to_xywh(split.boxes)
    twice: list[int] = []
    for rows in _groups(key[order], order):
        iou = np.triu(pairwise_iou(xywh[rows], xywh[rows]), k=1)
        twice += rows[(iou > SAME).any(axis=0)].tolist()
    return np.array(sorted(twice), dtype=np.int64)


def _groups(sorted_key: NDArray[np.int64], order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows of each key that has several."""
    if not len(order):
        return
    for rows in np.split(order, np.flatnonzero(np.diff(sorted_key)) + 1):
        if len(rows) > 1:
            yield rows


def _texts(split: InspectedSplit, rows: NDArray[np.int64]) -> Iterator[str]:
    for row in rows.tolist():
        box = ", ".join(f"{value:.4g}" for value in split.boxes[row])
        yield f"{split.images[split.box_images[row]]}: {split.class_names[split.box_classes[row]]} at ({box})"

"""Detections as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Of one image, best first.

    Args:
        boxes: (D, 4) XYXY pixels of the image, clipped to it.
        scores: (D,) in [0, 1].
        labels: (D,) int64, indices of classes.
        names: of those classes.
    """

    boxes: Floats
    scores: Floats
    labels: Indices
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)


def select(
    scores: Floats,
    labels: Indices,
    boxes: Floats,
    *,
    thresholds: Floats,
    suppress: float | None = None,
    max_detections: int | None = None,
) -> Indices:
    """Which detections of an image are asked for, best first.

    Args:
        scores: (D,).
        labels: (D,).
        boxes: (D, 4) XYXY, any unit.
        thresholds: (K,), from which score on a detection of each class is kept.
        suppress: class-wise non-maximum suppression at this IoU; None for none.
        max_detections: the best so many.
    """
    kept: Indices = np.flatnonzero(scores >= thresholds[labels])
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    if suppress is not None:
        kept = kept[_remaining(boxes[kept], labels[kept], suppress)]
    return kept[:max_detections]


def _remaining(boxes: Floats, labels: Indices, threshold: float) -> npt.NDArray[np.bool_]:
    """Which boxes remain if each that remains strikes out all worse ones of its class that it overlaps by more."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remains = np.ones(len(boxes), dtype=np.bool_)
    for place in range(len(boxes)):
        if not remains[place]:
            continue
        rest = boxes[place + 1 :]
        low = np.maximum(rest[:, :2], boxes[place, :2])
        high = np.minimum(rest[:, 2:], boxes[place, 2:])
        shared = np.clip(high - low, 0, None).prod(1)
        together = areas[place + 1 :] + areas[place] - shared
        overlaps = shared > threshold * together  # boxes without area overlap nothing
        remains[place + 1 :] &= ~(overlaps & (labels[place + 1 :] == labels[place]))
    return remains


def names_of(labels: Indices, class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes."""
    return tuple(class_names[label] for label in labels.tolist())

"""Joining the detections of overlapping cells (Stewart et al., CVPR 2016, section 2.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

SWEEPS = ((0.8, 1.0), (0.7, 0.9), (0.6, 0.8), (0.5, 0.7), (0.4, 0.6), (0.3, 0.5), (0.2, 0.4), (0.1, 0.3), (0.05, 0.2))
"""Of each sweep over the cells, the confidence above which predictions take part, and that above which they were dealt
with before; the authors' numbers."""


@dataclass(eq=False)
class _Detection:
    """A predicted box (cx, cy, w, h), how sure the model is of it, and its score after stitching."""

    box: np.ndarray
    confidence: float
    score: float


def stitch(
    boxes: Tensor, confidence: Tensor, *, sweeps: Sequence[tuple[float, float]] = SWEEPS, same_iou: float = 0.7
) -> tuple[Tensor, Tensor]:
    """Accept the predictions of one cell after another, but for those that an accepted one accounts for.

    Cells are visited row by row, in sweeps of falling confidence. The predictions of a cell are matched to accepted
    ones that any of them touches: as many touching pairs as possible, then the smallest L1 distance. One that touches
    its partner is the same object and dropped, unless it is surer and overlaps by more than ``same_iou``; then it takes
    the place of the partner, and its confidence for a score. One without a partner, or with one that it does not touch,
    is a new object.

    Args:
        boxes: (R, T, 4) cxcywh in pixels of the image, T predictions of each cell, cells row by row.
        confidence: (R, T) in [0, 1].
        sweeps: see ``SWEEPS``.
        same_iou: IoU above which two boxes are one.

    Returns:
        Accepted boxes (D, 4) cxcywh and their scores (D,), best first, on the device of ``boxes``.
    """
    lowest = min(low for low, _ in sweeps)
    cells = []
    for cell_boxes, cell_confidence in zip(
        boxes.detach().double().cpu().numpy(), confidence.detach().double().cpu().numpy()
    ):
        pairs = zip(cell_boxes, cell_confidence)
        cells.append([_Detection(box, c, c) for box, c in pairs if c > lowest and np.isfinite(box).all()])
    accepted: list[_Detection] = []
    for low, high in sweeps:
        for cell in cells:
            current = [one for one in cell if one.confidence > low]
            if current:
                accepted = _stitch_cell(current, accepted, high, same_iou)
    accepted.sort(key=lambda one: -one.score)
    kept = torch.tensor(np.array([one.box for one in accepted]).reshape(-1, 4), dtype=boxes.dtype)
    scores = torch.tensor([one.score for one in accepted], dtype=confidence.dtype)
    return kept.to(boxes.device), scores.to(boxes.device)


def _stitch_cell(
    current: list[_Detection], accepted: list[_Detection], high: float, same_iou: float
) -> list[_Detection]:
    """The accepted detections after one cell's."""
    partners = [accepted[i] for i in _touch(current, accepted).any(0).nonzero()[0]]
    dropped: set[int] = set()
    replaced: set[int] = set()
    touch = _touch(current, partners)
    distance = np.abs(_boxes(current)[:, None] - _boxes(partners)).sum(-1)
    # The authors' cost; a touch is worth more than any sum of distances up to 100,000 pixels.
    for row, column in zip(*linear_sum_assignment(1000 - 100 * touch + distance / 1000)):
        one, partner = current[row], partners[column]
        if one.confidence > high:
            dropped.add(row)
        elif touch[row, column]:
            if one.confidence > partner.confidence and _iou(one.box, partner.box) > same_iou:
                one.score = partner.confidence
                replaced.add(id(partner))
            else:
                dropped.add(row)
    kept = [one for one in accepted if id(one) not in replaced]
    already = {id(one) for one in kept}
    return kept + [one for row, one in enumerate(current) if row not in dropped and id(one) not in already]


def _boxes(detections: Sequence[_Detection]) -> np.ndarray:
    return np.array([one.box for one in detections]).reshape(-1, 4)


def _touch(ones: Sequence[_Detection], others: Sequence[_Detection]) -> np.ndarray:
    """(N, M) bool: whether boxes overlap or share a border."""
    a, b = _boxes(ones)[:, None], _boxes(others)
    return (np.abs(a[..., :2] - b[..., :2]) <= 0.5 * (a[..., 2:] + b[..., 2:])).all(-1)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low = np.maximum(a[:2] - 0.5 * a[2:], b[:2] - 0.5 * b[2:])
    high = np.minimum(a[:2] + 0.5 * a[2:], b[:2] + 0.5 * b[2:])
    overlap = np.prod(np.clip(high - low, 0.0, None))
    union = a[2] * a[3] + b[2] * b[3] - overlap
    return float(overlap / union) if union > 0 else 0.0

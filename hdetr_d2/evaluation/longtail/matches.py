"""Which detections are right, and what a model calls the objects that it finds, both at an IoU of 0.5."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import pairwise_iou

from ..detections import Detections
from ..ground_truth import Annotations, GroundTruth
from ..lvis import of_annotated_classes

IOU = 0.5


@dataclass(frozen=True)
class Judged:
    """The detections that are judged, and whether they are right.

    Args:
        detections: N of them. In LVIS's metrics, left out are those of classes that are neither annotated in their
            image nor known to be absent, those that match an ignored annotation, and those without a match in a class
            that is not exhaustive, all of which the metrics leave out too.
        correct: (N,) bool, whether it is the best one for an object of its class that no better one has taken.
    """

    detections: Detections
    correct: NDArray[np.bool_]


def judge(
    truth: GroundTruth, detections: Detections, *, style: Literal["lvis", "coco"] = "lvis", iou: float = IOU
) -> Judged:
    """Decide which detections are right, as the metrics do.

    Args:
        truth: for "lvis" from :func:`prepare_truth`.
        detections: limited to what counts of each image or class.
        style: whose metrics. COCO's judge every detection, but those in crowds and ignored regions that are no better
            detection of an object, however many there are.
        iou: from which on a detection is of an object.
    """
    annotations = truth.annotations
    if style == "lvis":
        detections = detections.select(of_annotated_classes(detections, truth))
        left_out, region = annotations.ignored, np.zeros(len(annotations), dtype=bool)
    else:
        left_out = region = annotations.ignored | annotations.crowd
    keys = _Keys(truth)
    key = keys.of(detections.image_ids, detections.category_ids)
    order = np.lexsort((-detections.scores, key))
    detections, key = detections.select(order), key[order]
    object_key = keys.of(annotations.image_ids, annotations.category_ids)
    correct = np.zeros(len(detections), dtype=bool)
    ignored = np.zeros(len(detections), dtype=bool)
    for found, objects in _same_key(key, object_key):
        boxes, others = detections.boxes[found], annotations.boxes[objects]
        overlap = pairwise_iou(boxes, others)
        if region[objects].any():
            overlap[:, region[objects]] = _share_inside(boxes, others[region[objects]])
        correct[found], ignored[found] = _greedy(overlap, left_out[objects], region[objects], iou)
    if style == "coco":
        return Judged(detections=detections.select(~ignored), correct=correct[~ignored])
    pairs = truth.not_exhaustive if truth.not_exhaustive is not None else np.empty((0, 2), dtype=np.int64)
    pairs = pairs[np.isin(pairs[:, 1], truth.category_ids)]
    forgiven = np.isin(key, keys.of(pairs[:, 0], pairs[:, 1])) & ~correct
    counts = ~(ignored | forgiven)
    return Judged(detections=detections.select(counts), correct=correct[counts])


class _Keys:
    """One number for an image and a category."""

    def __init__(self, truth: GroundTruth) -> None:
        self.images, self.categories = np.sort(truth.image_ids), truth.category_ids

    def of(self, image_ids: NDArray[np.int64], category_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        image = np.searchsorted(self.images, image_ids)
        return image * len(self.categories) + np.searchsorted(self.categories, category_ids)


def _same_key(
    sorted_keys: NDArray[np.int64], other_keys: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Rows of both that have the same key, key after key; the first are sorted by it."""
    order = np.argsort(other_keys, kind="stable")
    keys, starts = np.unique(other_keys[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    first = np.searchsorted(sorted_keys, keys, "left")
    last = np.searchsorted(sorted_keys, keys, "right")
    for start, end, low, high in zip(starts.tolist(), ends.tolist(), first.tolist(), last.tolist()):
        if low < high:
            yield slice(low, high), order[start:end]


def _share_inside(boxes: NDArray[np.float64], regions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M): of each XYWH box, the part of its area that is inside each region."""
    starts = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    ends = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (regions[:, :2] + regions[:, 2:])[None])
    inside = (ends - starts).clip(0).prod(axis=2)
    areas = np.broadcast_to(boxes[:, 2:].prod(axis=1)[:, None], inside.shape)
    return np.divide(inside, areas, out=np.zeros_like(inside), where=areas > 0)


def _greedy(
    iou: NDArray[np.float64], ignored: NDArray[np.bool_], region: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Each detection takes the free object that it overlaps most, real objects before ignored ones.

    Args:
        iou: (N, M), detections by falling score.
        ignored: (M,).
        region: (M,) which of them stay free whatever takes them.
        threshold: the least overlap.

    Returns:
        (N,) whether it took a real one, (N,) whether it took an ignored one.
    """
    took, took_ignored = np.zeros(len(iou), dtype=bool), np.zeros(len(iou), dtype=bool)
    free = np.ones(iou.shape[1], dtype=bool)
    for row in np.flatnonzero(iou.max(axis=1) >= threshold).tolist():
        for chosen, kind in ((took, ~ignored), (took_ignored, ignored)):
            possible = np.where(free & kind, iou[row], -1.0)
            best = len(possible) - 1 - int(possible[::-1].argmax())  # of equal ones the last, as in the metrics
            if possible[best] >= threshold:
                chosen[row], free[best] = True, bool(region[best])
                break
    return took, took_ignored


def called(annotations: Annotations, detections: Detections) -> NDArray[np.int64]:
    """What a model calls each object: the detection of the highest score that overlaps it, whatever its class.

    Args:
        annotations: of M objects.
        detections: of any class, also those that LVIS does not judge.

    Returns:
        (M,) int64 row of ``detections``; -1 where none overlaps the object.
    """
    order = np.lexsort((-detections.scores, detections.image_ids))
    images, boxes = detections.image_ids[order], detections.boxes[order]
    found = np.full(len(annotations), -1, dtype=np.int64)
    for rows, objects in _same_key(images, annotations.image_ids):
        overlaps = pairwise_iou(annotations.boxes[objects], boxes[rows]) >= IOU
        first = overlaps.argmax(axis=1)
        found[objects] = np.where(overlaps.any(axis=1), order[rows][first], -1)
    return found

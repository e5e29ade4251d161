"""From which score on a detection should be shown: the threshold of each class with the best F1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .detections import Detections
from .ground_truth import GroundTruth
from .longtail.matches import judge
from .lvis import prepare_truth

Style = Literal["coco", "lvis"]

DEFAULT_THRESHOLD = 0.3
"""Where nothing was found that could decide."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A score, and what the detections from it on are worth.

    Args:
        score: the smallest that is shown.
        f1: of these detections; 0 where no detection is right.
        precision: the part of them that is right; 0 where there are none.
        recall: the part of the objects that they find; 0 where there are none.
        objects: to be found.
        shown: detections from this score on.
    """

    score: float
    f1: float
    precision: float
    recall: float
    objects: int
    shown: int


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """The thresholds that were chosen on a dataset.

    Args:
        overall: the best one for all classes together.
        classes: by category id, ids ascending. A class of which no detection is right has the overall score.
    """

    overall: Threshold
    classes: dict[int, Threshold]

    def keep(self, detections: Detections) -> Detections:
        """The detections that are shown."""
        ids = np.fromiter(self.classes, dtype=np.int64, count=len(self.classes))
        scores = np.array([each.score for each in self.classes.values()])
        return detections.select(detections.scores >= scores[np.searchsorted(ids, detections.category_ids)])


def best_thresholds(truth: GroundTruth, detections: Detections, *, style: Style = "coco") -> OperatingPoint:
    """Choose for each class the score with the best F1 = 2 TP / (shown + objects), at an IoU of 0.5.

    Detections are right where the metrics of ``style`` say so. Every score that occurs is tried; of scores with equal
    F1 the highest is taken, which shows the fewest detections.

    Args:
        truth: the annotations.
        detections: all that a model gives, however low their scores.
        style: whose metrics.
    """
    if style == "lvis":
        truth = prepare_truth(truth)
    judged = judge(truth, detections, style=style)
    found, annotations = judged.detections, truth.annotations
    counted = ~annotations.ignored if style == "lvis" else ~(annotations.ignored | annotations.crowd)
    real = annotations.category_ids[counted]
    overall = _best(found.scores, judged.correct, len(real), fallback=DEFAULT_THRESHOLD)
    classes = {}
    for category in truth.category_ids.tolist():
        rows, objects = found.category_ids == category, int((real == category).sum())
        classes[category] = _best(found.scores[rows], judged.correct[rows], objects, fallback=overall.score)
    return OperatingPoint(overall=overall, classes=classes)


def _best(scores: NDArray[np.float64], correct: NDArray[np.bool_], objects: int, *, fallback: float) -> Threshold:
    """The best of all scores that occur."""
    order = np.argsort(-scores, kind="stable")
    falling, right = scores[order], np.cumsum(correct[order], dtype=np.int64)
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else np.empty(0, dtype=int)
    shown = last + 1
    f1 = 2 * right[last] / (shown + objects)
    if not len(f1) or f1.max() == 0:
        return replace(_at(falling, right, objects, fallback), score=fallback)
    return _at(falling, right, objects, float(falling[last[int(f1.argmax())]]))


def _at(falling: NDArray[np.float64], right: NDArray[np.int64], objects: int, score: float) -> Threshold:
    """What a threshold is worth.

    Args:
        falling: (N,) scores, largest first.
        right: (N,) how many of the first are right.
    """
    shown = int((falling >= score).sum())
    hits = int(right[shown - 1]) if shown else 0
    return Threshold(
        score=score,
        f1=2 * hits / (shown + objects) if shown + objects else 0.0,
        precision=hits / shown if shown else 0.0,
        recall=hits / objects if objects else 0.0,
        objects=objects,
        shown=shown,
    )

"""AP on resampled images: how much of a difference is the choice of the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .detections import Detections
from .ground_truth import FREQUENCIES, GroundTruth
from .longtail.matches import judge
from .lvis import limit_per_image, prepare_truth

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class _Ranked:
    """The detections of one class at one threshold, best first: their images' numbers, and which are right."""

    image: NDArray[np.int64]
    correct: NDArray[np.bool_]


class ResampledAP:
    """The AP of one model on any weighting of the images.

    It is the area under the precision-recall curve, precision made to fall; the metrics read that curve at 101 places,
    which gives nearly the same. Detections are judged once.

    Args:
        truth: the annotations.
        detections: of the model.
        style: whose metrics.
        max_dets: detections of an image that count.

    Attributes:
        image_ids: (I,) ascending; weights are in this order.
        categories: (K,) ids ascending.
    """

    def __init__(
        self, truth: GroundTruth, detections: Detections, *, style: Literal["coco", "lvis"], max_dets: int
    ) -> None:
        if style == "lvis":
            truth = prepare_truth(truth)
        limited = limit_per_image(detections, max_dets)
        self.image_ids = np.sort(truth.image_ids)
        self.categories = truth.category_ids
        annotations = truth.annotations
        counted = ~(annotations.ignored | annotations.crowd)
        image = np.searchsorted(self.image_ids, annotations.image_ids[counted])
        category = np.searchsorted(self.categories, annotations.category_ids[counted])
        self._objects = np.zeros((len(self.image_ids), len(self.categories)))
        np.add.at(self._objects, (image, category), 1.0)
        self._ranked = [self._by_class(truth, limited, style, threshold) for threshold in THRESHOLDS]

    def _by_class(
        self, truth: GroundTruth, detections: Detections, style: Literal["coco", "lvis"], threshold: float
    ) -> list[_Ranked]:
        judged = judge(truth, detections, style=style, iou=threshold)
        found = judged.detections
        category = np.searchsorted(self.categories, found.category_ids)
        order = np.lexsort((-found.scores, category))
        image = np.searchsorted(self.image_ids, found.image_ids)[order]
        ends = np.searchsorted(category[order], np.arange(len(self.categories) + 1))
        return [
            _Ranked(image[start:end], judged.correct[order][start:end])
            for start, end in zip(ends[:-1].tolist(), ends[1:].tolist())
        ]

    def objects(self) -> Numbers:
        """(K,) objects of each class."""
        return self._objects.sum(0)

    def class_aps(self, weights: Numbers) -> Numbers:
        """AP in percent.

        Args:
            weights: (R, I) how often each image counts, in R drawings.

        Returns:
            (R, K), NaN where a drawing has no object of a class.
        """
        objects = weights @ self._objects
        total = np.zeros(objects.shape)
        for ranked in self._ranked:
            for column, one in enumerate(ranked):
                total[:, column] += _area(one, weights, objects[:, column])
        return np.where(objects > 0, 100 * total / len(self._ranked), np.nan)


def _area(ranked: _Ranked, weights: Numbers, objects: Numbers) -> Numbers:
    """(R,) the area under the curve of one class at one threshold, in [0, 1]."""
    if not ranked.correct.any():
        return np.zeros(len(weights))
    weight = weights[:, ranked.image]
    seen = np.cumsum(weight, axis=1)
    right = np.cumsum(weight * ranked.correct, axis=1)
    precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (envelope * weight * ranked.correct).sum(1)
    return np.divide(area, objects, out=np.zeros_like(area), where=objects > 0)


def class_groups(truth: GroundTruth, objects: Numbers) -> Mapping[str, NDArray[np.bool_]]:
    """Classes by frequency: (K,) masks by name.

    Rare, common and frequent where the file says it of its classes, else thirds by their number of objects there; none
    where there are fewer than six classes with objects.
    """
    if truth.frequencies is not None:
        names = dict(zip(FREQUENCIES, ("rare", "common", "frequent")))
        groups = np.array([truth.frequencies[identity] for identity in truth.category_names])
        return {name: groups == letter for letter, name in names.items()}
    shown = np.flatnonzero(objects > 0)
    if len(shown) < 6:
        return {}
    ordered = shown[np.argsort(objects[shown], kind="stable")]
    masks = {}
    for name, part in zip(("fewest objects", "middle", "most objects"), np.array_split(ordered, 3)):
        masks[name] = np.isin(np.arange(len(objects)), part)
    return masks


def drawn_weights(images: int, drawings: int, *, seed: int = 0) -> Numbers:
    """(R, I) how often each of I images is drawn, with replacement, in R drawings; the same for the same arguments."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.multinomial(images, np.full(images, 1.0 / images), size=drawings).astype(np.float64)

"""Epochs in which rare classes are seen more often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import DatasetError
from .sampling import EpochSampling


def classes_of(record: dict[str, Any]) -> np.ndarray:
    """The different classes of a dataset dict, (C,) int64 ascending; crowd regions are no training objects."""
    classes = [a["category_id"] for a in record["annotations"] if not a.get("iscrowd", 0)]
    return np.unique(np.array(classes, dtype=np.int64))


def repeat_factors(classes: Sequence[np.ndarray], *, threshold: float, sqrt: bool = True) -> np.ndarray:
    """How often each image is seen in an epoch (repeat factor sampling of LVIS, Gupta et al., CVPR 2019).

    A class in a part f of the images has the factor max(1, sqrt(threshold / f)), an image the largest one of its
    classes, and 1 if it has none.

    Args:
        classes: the different classes of each image.
        threshold: the part of images below which a class is repeated; 0.001 in LVIS's and H-DETR's models.
        sqrt: False leaves out the square root, so that rare classes are repeated more.

    Returns:
        (N,) float64, at least 1.
    """
    seen = np.concatenate([np.empty(0, dtype=np.int64), *classes])
    if not len(seen):
        return np.ones(len(classes))
    ratio = threshold * len(classes) / np.maximum(np.bincount(seen), 1)
    of_class = np.maximum(1.0, np.sqrt(ratio) if sqrt else ratio)
    return np.array([of_class[c].max() if len(c) else 1.0 for c in classes])


class RepeatFactorSampling(EpochSampling):
    """Every image as often as its rarest class asks for (see ``repeat_factors``), in random order.

    The part of a factor behind the point is a probability, drawn anew in each epoch. Such an epoch is longer than the
    dataset; the epochs of ``schedule`` count as many images as the dataset has.

    Args:
        threshold, sqrt: see ``repeat_factors``.
    """

    def __init__(self, *, threshold: float = 0.001, sqrt: bool = True) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"RepeatFactorSampling: threshold is a part of the images, in [0, 1], got {threshold}")
        self.threshold = threshold
        self.sqrt = sqrt
        self._whole = np.empty(0, dtype=np.int64)
        self._fraction = np.empty(0)

    def start(self, dataset: Sequence[dict[str, Any]]) -> None:
        """Counts in how many images each class is."""
        factors = repeat_factors([classes_of(r) for r in dataset], threshold=self.threshold, sqrt=self.sqrt)
        self._whole = np.floor(factors).astype(np.int64)
        self._fraction = factors - self._whole

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """As the base class says; at least as long as the dataset."""
        repeats = self._whole + (rng.random(len(self._whole)) < self._fraction)
        return rng.permutation(np.repeat(np.arange(len(repeats)), repeats))


class ClassBalancedSampling(EpochSampling):
    """Every class equally often, whatever its number of images (class-aware sampling, Shen et al., ECCV 2016).

    Each sample stands for a class, the classes in turn, and is one of the images that show it, the images of a class in
    turn too; both orders are drawn anew in each epoch. An epoch has as many samples as the dataset has images; images
    without objects are never among them.
    """

    def __init__(self) -> None:
        self._size = 0
        self._images: list[np.ndarray] = []

    def start(self, dataset: Sequence[dict[str, Any]]) -> None:
        """Lists the images of each class."""
        pairs = [(c, row) for row, record in enumerate(dataset) for c in classes_of(record).tolist()]
        if not pairs:
            raise DatasetError("ClassBalancedSampling: the training dataset has no annotations to balance")
        classes, rows = np.array(sorted(pairs), dtype=np.int64).T
        self._size = len(dataset)
        self._images = np.split(rows, np.flatnonzero(np.diff(classes)) + 1)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """As the base class says; exactly as long as the dataset."""
        count = len(self._images)
        rounds = -(-self._size // count)
        classes = np.concatenate([rng.permutation(count) for _ in range(rounds)])[: self._size]
        indices = np.empty(self._size, dtype=np.int64)
        for position, images in enumerate(self._images):
            places = np.flatnonzero(classes == position)
            turns = -(-len(places) // len(images))
            order = np.concatenate([rng.permutation(images) for _ in range(turns)]) if turns else images[:0]
            indices[places] = order[: len(places)]
        return indices

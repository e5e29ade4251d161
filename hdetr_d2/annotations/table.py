"""An annotation file as columns: what is kept of it in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Categories:
    """The category table, sorted by id; the position in it is the contiguous class id of models."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    frequencies: tuple[str, ...] | None  # LVIS: "r", "c" or "f"
    image_counts: tuple[int, ...] | None  # LVIS: images that show the class


@dataclass(frozen=True)
class Fault:
    """Why an annotation cannot be read: how such faults are counted ("with ..."), and the one as a sentence's end."""

    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """A json file as columns; rows of ``annotation_*`` belong together, as do those of ``image_*``.

    What is wrong with single annotations is still in here (checks.py judges it). What makes the file unusable as a
    whole was refused when it was read.
    """

    path: str  # or what messages call it
    categories: Categories
    image_ids: NDArray[np.int64]  # (N,) unique
    image_sizes: NDArray[np.float64]  # (N, 2) of (height, width); NaN where the file does not say it
    image_names: tuple[tuple[str, ...], ...]  # for each image the file names to try below the image folder, best first
    image_not_exhaustive: tuple[tuple[int, ...], ...] | None  # LVIS: category ids, not contiguous
    image_negative: tuple[tuple[int, ...], ...] | None
    annotation_ids: NDArray[np.int64]  # (M,) those that are not given follow the largest
    annotation_image_ids: NDArray[np.int64]  # (M,)
    annotation_category_ids: NDArray[np.int64]  # (M,)
    annotation_boxes: NDArray[np.float64]  # (M, 4) x, y, width, height in pixels; NaN in a row with a fault
    annotation_areas: NDArray[np.float64]  # (M,) pixels squared; the box's where the file does not say it
    annotation_crowd: NDArray[np.bool_]  # (M,)
    annotation_ignored: NDArray[np.bool_]  # (M,) "ignore"
    faults: Mapping[int, Fault] = field(default_factory=dict)  # by row of annotations
    without_lists: Mapping[str, int] = field(default_factory=dict)  # LVIS's list -> id of the first image without it


@dataclass(frozen=True)
class DatasetInfo:
    """What a config needs to know of a dataset before anything is built.

    Attributes:
        num_images, num_annotations, num_classes: counts.
        names, category_ids: by contiguous class id.
        image_counts: images that show each class, as the file's categories say, else counted in it.
        frequencies: LVIS's group of each class, "r", "c" or "f", as the categories say, else of ``image_counts``.
    """

    num_images: int
    num_annotations: int
    num_classes: int
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_counts: tuple[int, ...]
    frequencies: tuple[str, ...]

"""What an annotation file says about boxes, as the evaluation reads it, in columns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import (
    FREQUENCIES,
    AnnotationFile,
    GroundTruthError,
    check_annotations,
    declared_groups,
    read_annotations,
)

__all__ = ["FREQUENCIES", "Annotations", "GroundTruth", "GroundTruthError", "ground_truth_of", "load_ground_truth"]


@dataclass(frozen=True)
class Annotations:
    """Annotated boxes; row i of all columns belongs together.

    Args:
        image_ids: (M,) int64.
        category_ids: (M,) int64.
        boxes: (M, 4) float64 XYWH in pixels.
        areas: (M,) float64 pixels squared: the file's, which may be a mask's, or the box's.
        crowd: (M,) bool, ``iscrowd`` of COCO; LVIS has none.
        ignored: (M,) bool, ``ignore``: neither to be found nor an error to find. In LVIS's metrics it stands for one
            object, in COCO's for a region like a crowd's, since pycocotools has nothing else that is left out.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.areas)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Annotations:
        """Some of the rows: a mask (M,), or their numbers."""
        return Annotations(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True)
class GroundTruth:
    """What an annotation file says about boxes.

    Args:
        source: what messages call it, usually the file's name.
        image_ids: (I,) int64 in the order of the file.
        category_names: name by category id, ids ascending; where several categories share a name, it ends in the id.
        annotations: the boxes.
        frequencies: "r", "c" or "f" by category id; None where the file does not say it of every category.
        negative: (P, 2) int64 pairs (image, category) of which the annotators of LVIS say that there are none;
            None where the file has no such lists.
        not_exhaustive: (Q, 2) int64 pairs of which they have not annotated all; None where the file has no such lists.
        without_lists: of each of these two lists ("neg_category_ids" ...) that not all images have, the id of the first
            image without it.
    """

    source: str
    image_ids: NDArray[np.int64]
    category_names: dict[int, str]
    annotations: Annotations
    frequencies: dict[int, str] | None = None
    negative: NDArray[np.int64] | None = None
    not_exhaustive: NDArray[np.int64] | None = None
    without_lists: Mapping[str, int] = field(default_factory=dict)

    @property
    def category_ids(self) -> NDArray[np.int64]:
        """(K,) int64, ascending."""
        return np.fromiter(self.category_names, dtype=np.int64, count=len(self.category_names))

    def named(self, names: Sequence[str] | None) -> GroundTruth:
        """With other names for the categories, in the order of their ids; None, or another number: as it is."""
        if names is None or len(names) != len(self.category_names):
            return self
        return replace(self, category_names=_unique_names(list(self.category_names), [str(name) for name in names]))

    def restricted_to(self, image_ids: Collection[int] | NDArray[np.int64]) -> GroundTruth:
        """The part of it that is about these images."""
        wanted = np.fromiter(image_ids, dtype=np.int64, count=len(image_ids))
        return replace(
            self,
            image_ids=self.image_ids[np.isin(self.image_ids, wanted)],
            annotations=self.annotations.select(np.isin(self.annotations.image_ids, wanted)),
            negative=_rows_with(self.negative, 0, wanted),
            not_exhaustive=_rows_with(self.not_exhaustive, 0, wanted),
        )

    def restricted_to_categories(self, category_ids: NDArray[np.int64]) -> GroundTruth:
        """The part of it that is about these categories, with all images."""
        wanted = set(category_ids.tolist())
        return replace(
            self,
            category_names={id_: name for id_, name in self.category_names.items() if id_ in wanted},
            annotations=self.annotations.select(np.isin(self.annotations.category_ids, category_ids)),
            negative=_rows_with(self.negative, 1, category_ids),
            not_exhaustive=_rows_with(self.not_exhaustive, 1, category_ids),
        )


def _rows_with(pairs: NDArray[np.int64] | None, column: int, wanted: NDArray[np.int64]) -> NDArray[np.int64] | None:
    return None if pairs is None else pairs[np.isin(pairs[:, column], wanted)]


def load_ground_truth(
    annotations: str | os.PathLike[str] | Mapping[str, Any], *, invalid: str = "error", amodal: bool = True
) -> GroundTruth:
    """Read an annotation file in COCO or LVIS format, with the reader and the checks of training.

    Args:
        annotations: the file, or what it contains. An annotation without ``area`` gets its box's; one without
            ``iscrowd`` is no crowd.
        invalid: what becomes of faulty annotations, "error" or "drop", as ``dataset.invalid`` says it for training.
        amodal: boxes may exceed their image by its own size, as they do where hidden parts are annotated; False allows
            what training allows.

    Raises:
        GroundTruthError: the file cannot be read, or is refused by the checks; the message names the item.
    """
    return ground_truth_of(read_annotations(annotations), invalid=invalid, amodal=amodal)


def ground_truth_of(table: AnnotationFile, *, invalid: str = "error", amodal: bool = True) -> GroundTruth:
    """The same of a file that has been read.

    Raises:
        GroundTruthError: see `load_ground_truth`.
    """
    checked = check_annotations(table, invalid=invalid, amodal=amodal)
    rows = np.sort(np.concatenate([checked.rows, checked.zero_size]))
    groups = declared_groups(table)
    ids = list(table.categories.ids)
    return GroundTruth(
        source=table.path,
        image_ids=table.image_ids,
        category_names=_unique_names(ids, table.categories.names),
        annotations=Annotations(
            image_ids=table.annotation_image_ids,
            category_ids=table.annotation_category_ids,
            boxes=table.annotation_boxes,
            areas=table.annotation_areas,
            crowd=table.annotation_crowd,
            ignored=table.annotation_ignored,
        ).select(rows),
        frequencies=None if groups is None else dict(zip(ids, groups)),
        negative=_pairs(table, table.image_negative),
        not_exhaustive=_pairs(table, table.image_not_exhaustive),
        without_lists=table.without_lists,
    )


def _unique_names(ids: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """Name by id, no name twice."""
    how_often = Counter(names)
    return {id_: name if how_often[name] == 1 else f"{name} ({id_})" for id_, name in zip(ids, names)}


def _pairs(table: AnnotationFile, lists: tuple[tuple[int, ...], ...] | None) -> NDArray[np.int64] | None:
    """The categories that images list, as pairs; None if no image has a list."""
    if lists is None:
        return None
    images = np.repeat(table.image_ids, [len(each) for each in lists])
    categories = np.array([category for each in lists for category in each], dtype=np.int64)
    return np.stack([images, categories], axis=1)

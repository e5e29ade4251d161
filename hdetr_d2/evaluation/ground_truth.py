"""Annotation files in COCO and LVIS format, reduced to what the evaluation of boxes reads, in columns."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.errors import UserError

from ..data.annotation_file import without_cycle_collection
from .json_files import read_json

FREQUENCIES = ("r", "c", "f")  # rare, common, frequent: seen in at most 10, at most 100, or more training images


class GroundTruthError(UserError, ValueError):
    """An annotation file cannot be evaluated against; the message names the file and the item."""


@dataclass(frozen=True)
class Annotations:
    """Annotated boxes; row i of all columns belongs together.

    Args:
        image_ids: (M,) int64.
        category_ids: (M,) int64.
        boxes: (M, 4) float64 XYWH in pixels.
        areas: (M,) float64 pixels squared: the file's, which may be a mask's, or the box's.
        crowd: (M,) bool, ``iscrowd`` of COCO; LVIS has none.
        ignored: (M,) bool, ``ignore`` of LVIS: neither to be found nor an error to find; COCO has it not.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.areas)

    def select(self, rows: NDArray[np.bool_]) -> "Annotations":
        """The rows where the mask (M,) is true."""
        return Annotations(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True)
class GroundTruth:
    """What an annotation file says about boxes.

    Args:
        source: what messages call it, usually the file's name.
        image_ids: (I,) int64 in the order of the file.
        category_names: name by category id, ids ascending; where several categories share a name, it ends in the id.
        annotations: the boxes.
        frequencies: "r", "c" or "f" by category id; None where the file does not have it for every category.
        negative: (P, 2) int64 pairs (image, category) of which the annotators of LVIS say that there are none;
            None where the file has no such lists.
        not_exhaustive: (Q, 2) int64 pairs of which they have not annotated all; None where the file has no such lists.
    """

    source: str
    image_ids: NDArray[np.int64]
    category_names: dict[int, str]
    annotations: Annotations
    frequencies: dict[int, str] | None = None
    negative: NDArray[np.int64] | None = None
    not_exhaustive: NDArray[np.int64] | None = None

    @property
    def category_ids(self) -> NDArray[np.int64]:
        """(K,) int64, ascending."""
        return np.fromiter(self.category_names, dtype=np.int64, count=len(self.category_names))

    def restricted_to(self, image_ids: Collection[int] | NDArray[np.int64]) -> "GroundTruth":
        """The part of it that is about these images."""
        wanted = np.fromiter(image_ids, dtype=np.int64, count=len(image_ids))
        return replace(
            self,
            image_ids=self.image_ids[np.isin(self.image_ids, wanted)],
            annotations=self.annotations.select(np.isin(self.annotations.image_ids, wanted)),
            negative=_rows_with(self.negative, 0, wanted),
            not_exhaustive=_rows_with(self.not_exhaustive, 0, wanted),
        )

    def restricted_to_categories(self, category_ids: NDArray[np.int64]) -> "GroundTruth":
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


@without_cycle_collection()
def load_ground_truth(annotations: str | os.PathLike[str] | Mapping[str, Any]) -> GroundTruth:
    """Read an annotation file in COCO or LVIS format.

    Args:
        annotations: the file, or what it contains. An annotation without ``area`` gets its box's; one without
            ``iscrowd`` is no crowd.

    Raises:
        GroundTruthError: a part is missing, an id occurs twice, or an annotation names an image or a category that the
            file does not have.
        OSError: the file cannot be read.
    """
    if isinstance(annotations, Mapping):
        source, content = "the annotations", annotations
    else:
        source = os.fspath(annotations)
        try:
            content = read_json(source)
        except ValueError as error:
            raise GroundTruthError(f"{source} is not JSON: {error}") from None
        if not isinstance(content, Mapping):
            raise GroundTruthError(f"{source} is not in COCO format but a {type(content).__name__}")
    missing = [key for key in ("images", "categories", "annotations") if key not in content]
    if missing:
        raise GroundTruthError(f"{source} is not in COCO format: it has no {' and no '.join(missing)}")

    image_ids = _ids(content["images"], "image", source)
    category_names = _category_names(content["categories"], source)
    boxes = _annotations(content["annotations"], source)
    known: tuple[tuple[str, NDArray[np.int64], Collection[int]], ...] = (
        ("image_id", boxes.image_ids, set(image_ids)),
        ("category_id", boxes.category_ids, category_names),
    )
    for key, used, existing in known:
        unknown = np.flatnonzero(~np.isin(used, np.fromiter(existing, dtype=np.int64, count=len(existing))))
        if unknown.size:
            identity = content["annotations"][unknown[0]].get("id")
            raise GroundTruthError(f"{source}: annotation {identity} has unknown {key} {used[unknown[0]]}")
    return GroundTruth(
        source=source,
        image_ids=np.array(image_ids, dtype=np.int64),
        category_names=category_names,
        annotations=boxes,
        frequencies=_frequencies(content["categories"]),
        negative=_pairs(content["images"], "neg_category_ids", source),
        not_exhaustive=_pairs(content["images"], "not_exhaustive_category_ids", source),
    )


def _ids(items: Sequence[Mapping[str, Any]], kind: str, source: str) -> list[int]:
    for index, item in enumerate(items):
        if type(item.get("id")) is not int:
            raise GroundTruthError(f"{source}: {kind} {index} has id {item.get('id')!r} instead of an integer")
    ids = [item["id"] for item in items]
    _require_unique(ids, kind, source)
    return ids


def _require_unique(ids: Sequence[Any], kind: str, source: str) -> None:
    if len(set(ids)) < len(ids):
        identity, times = Counter(ids).most_common(1)[0]
        raise GroundTruthError(f"{source}: {kind} id {identity!r} occurs {times} times; give each its own")


def _category_names(categories: Sequence[Mapping[str, Any]], source: str) -> dict[int, str]:
    """Name by id, ids ascending, no name twice."""
    ids = _ids(categories, "category", source)
    names = [str(category.get("name", category["id"])) for category in categories]
    how_often = Counter(names)
    unique = [name if how_often[name] == 1 else f"{name} ({id_})" for id_, name in zip(ids, names)]
    return dict(sorted(zip(ids, unique)))


def _frequencies(categories: Sequence[Mapping[str, Any]]) -> dict[int, str] | None:
    found = {category["id"]: category.get("frequency") for category in categories}
    return dict(found) if found and all(each in FREQUENCIES for each in found.values()) else None


def _pairs(images: Sequence[Mapping[str, Any]], key: str, source: str) -> NDArray[np.int64] | None:
    """The categories that images list under a key, as pairs; None if no image has the key."""
    if not any(key in image for image in images):
        return None
    pairs = [(image["id"], category) for image in images for category in image.get(key) or ()]
    try:
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise GroundTruthError(f'{source}: "{key}" of an image holds something other than category ids') from None


def _annotations(items: Sequence[Mapping[str, Any]], source: str) -> Annotations:
    rows = [_row(each, source) for each in items]
    _require_unique([each["id"] for each in items if "id" in each], "annotation", source)
    numbers = np.array([row[2:] for row in rows], dtype=np.float64).reshape(len(rows), 7)
    ids = np.array([row[:2] for row in rows], dtype=np.int64).reshape(len(rows), 2)
    return Annotations(
        image_ids=ids[:, 0],
        category_ids=ids[:, 1],
        boxes=numbers[:, :4],
        areas=numbers[:, 4],
        crowd=numbers[:, 5] != 0,
        ignored=numbers[:, 6] != 0,
    )


def _row(annotation: Mapping[str, Any], source: str) -> tuple[float, ...]:
    """image_id, category_id, x, y, width, height, area, iscrowd, ignore."""
    try:
        x, y, width, height = map(float, annotation["bbox"])
        ids = annotation["image_id"], annotation["category_id"]
        if type(ids[0]) is not int or type(ids[1]) is not int:
            raise TypeError(f"its image_id and category_id are {ids}")
        area = float(annotation.get("area", width * height))
        return (*ids, x, y, width, height, area, int(annotation.get("iscrowd", 0)), int(annotation.get("ignore", 0)))
    except (KeyError, TypeError, ValueError) as error:
        raise GroundTruthError(f"{source}: annotation {annotation.get('id')} is malformed: {error!r}") from None

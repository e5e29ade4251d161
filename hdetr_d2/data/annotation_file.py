"""Reading a COCO- or LVIS-format json into columns.

The parsed json of COCO train2017 takes gigabytes as Python objects. It is turned into arrays at once (about 70 MB),
and those are kept for the next reader in this process: the class count, the registration and the loader read the file
once together.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DatasetError
from .frequency import class_frequencies


@dataclass(frozen=True)
class Categories:
    """The category table, sorted by id; the position in it is the contiguous class id of models."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    frequencies: tuple[str, ...] | None  # LVIS: "r", "c" or "f"
    image_counts: tuple[int, ...] | None  # LVIS: images that show the class


@dataclass(frozen=True)
class AnnotationFile:
    """A json file as columns; rows of ``annotation_*`` belong together, as do those of ``image_*``.

    What is wrong with single annotations is still in here (validation.py judges it): a box that is no list of four
    numbers is a row of NaN. What makes the file unusable as a whole was refused when it was read.
    """

    path: str
    categories: Categories
    image_ids: np.ndarray  # (N,) int64, unique
    image_sizes: np.ndarray  # (N, 2) float64 of (height, width)
    image_names: tuple[tuple[str, ...], ...]  # for each image the file names to try below the image folder, best first
    image_not_exhaustive: tuple[tuple[int, ...], ...] | None  # LVIS: category ids, not contiguous
    image_negative: tuple[tuple[int, ...], ...] | None
    annotation_ids: np.ndarray  # (M,) int64
    annotation_image_ids: np.ndarray  # (M,) int64
    annotation_category_ids: np.ndarray  # (M,) int64
    annotation_boxes: np.ndarray  # (M, 4) float64, x, y, width, height in pixels
    annotation_crowd: np.ndarray  # (M,) bool


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


def resolve_path(path: str | os.PathLike[str]) -> str:
    """Finds a file or folder of a dataset: as given, else below ``$DETECTRON2_DATASETS`` (default ``./datasets``).

    Raises:
        DatasetError: it is in neither place; both are named.
    """
    given = Path(path).expanduser()
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    candidates = [given] if given.is_absolute() else [given, root / given]
    for candidate in candidates:
        if candidate.exists():
            return str(candidate)
    tried = " nor ".join(f'"{candidate}"' for candidate in candidates)
    raise DatasetError(
        f"there is no {tried}; give the path as dataset.train.json=... / dataset.train.images=... (the same for val) "
        "or set the environment variable DETECTRON2_DATASETS to the folder that holds it"
    )


def read_dataset_info(json_file: str | os.PathLike[str]) -> DatasetInfo:
    """Counts and class names of a COCO- or LVIS-format json.

    Args:
        json_file: see ``resolve_path``.

    Raises:
        DatasetError: the file is not there or not in the format.
    """
    table = read_annotation_file(json_file)
    frequencies = class_frequencies(table)
    return DatasetInfo(
        num_images=len(table.image_ids),
        num_annotations=len(table.annotation_ids),
        num_classes=len(table.categories.ids),
        names=table.categories.names,
        category_ids=table.categories.ids,
        image_counts=frequencies.image_counts,
        frequencies=frequencies.groups,
    )


def read_annotation_file(json_file: str | os.PathLike[str]) -> AnnotationFile:
    """Reads a json, or returns the columns of an earlier call if the file has not changed since.

    Raises:
        DatasetError: not there, not json, or not usable as a whole (see ``AnnotationFile``).
    """
    path = resolve_path(json_file)
    state = os.stat(path)
    return _read_cached(path, state.st_mtime_ns, state.st_size)


@contextmanager
def without_cycle_collection() -> Iterator[None]:
    """Python's cycle collector goes over millions of living json objects again and again: 14 of 22 s at COCO's size."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@lru_cache(maxsize=4)
def _read_cached(path: str, mtime_ns: int, size: int) -> AnnotationFile:
    with without_cycle_collection():
        return _columns(path, _parse(path))


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as handle:
            content = json.load(handle)
    except (ValueError, OSError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as json ({error})") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: the top level is a {type(content).__name__}, not an object; this is no COCO json")
    return content


def _columns(path: str, content: dict[str, Any]) -> AnnotationFile:
    categories = _categories(path, _items(path, content, "categories"))
    images = _items(path, content, "images")
    annotations = _items(path, content, "annotations")
    if not images:
        raise DatasetError(f"{path}: the list of images is empty")
    image_ids = _ids(path, images, "image", "id")
    _require_unique(path, "image", image_ids)
    return AnnotationFile(
        path=path,
        categories=categories,
        image_ids=image_ids,
        image_sizes=_image_sizes(path, images),
        image_names=tuple(_file_names(path, image) for image in images),
        image_not_exhaustive=_class_lists(images, "not_exhaustive_category_ids"),
        image_negative=_class_lists(images, "neg_category_ids"),
        annotation_ids=_ids(path, annotations, "annotation", "id"),
        annotation_image_ids=_ids(path, annotations, "annotation", "image_id"),
        annotation_category_ids=_ids(path, annotations, "annotation", "category_id"),
        annotation_boxes=_boxes(annotations),
        annotation_crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
    )


def _items(path: str, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list):
        raise DatasetError(
            f'{path}: has no list "{key}"; a COCO json has the lists "images", "annotations" and "categories"'
        )
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise DatasetError(f'{path}: entry {position} of "{key}" is {item!r}, not an object')
    return items


def _ids(path: str, items: Sequence[dict[str, Any]], what: str, key: str) -> np.ndarray:
    values = [item.get(key) for item in items]
    for position, value in enumerate(values):
        if type(value) is not int:
            own = "" if key == "id" else f" (id {items[position].get('id')!r})"
            raise DatasetError(f'{path}: {what} number {position}{own} has "{key}": {value!r}, which is not an integer')
    return np.array(values, dtype=np.int64)


def _require_unique(path: str, what: str, ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise DatasetError(
            f"{path}: {what} id {values[counts > 1][0]} occurs {counts.max()} times "
            f"({(counts > 1).sum()} {what} ids are not unique); give each its own id"
        )


def _categories(path: str, items: Sequence[dict[str, Any]]) -> Categories:
    if not items:
        raise DatasetError(f"{path}: the list of categories is empty")
    ids = _ids(path, items, "category", "id")
    _require_unique(path, "category", ids)
    ordered = [items[i] for i in np.argsort(ids)]
    has_counts = all(type(c.get("image_count")) is int for c in ordered)
    has_frequencies = all(c.get("frequency") in ("r", "c", "f") for c in ordered)
    return Categories(
        ids=tuple(int(c["id"]) for c in ordered),
        names=tuple(str(c.get("name", c["id"])) for c in ordered),
        frequencies=tuple(c["frequency"] for c in ordered) if has_frequencies else None,
        image_counts=tuple(c["image_count"] for c in ordered) if has_counts else None,
    )


def _image_sizes(path: str, images: Sequence[dict[str, Any]]) -> np.ndarray:
    for image in images:
        for key in ("height", "width"):
            value = image.get(key)
            if not isinstance(value, (int, float)) or not 1 <= value < 1e6 or value != int(value):
                raise DatasetError(f'{path}: image {image["id"]} has "{key}": {value!r}; it must be its size in pixels')
    return np.array([(i["height"], i["width"]) for i in images], dtype=np.float64).reshape(-1, 2)


def _file_names(path: str, image: dict[str, Any]) -> tuple[str, ...]:
    """Where an image may lie below the image folder.

    LVIS v1 names files only through ``coco_url`` (its last folder and name, as Detectron2 reads it), v0.5 by the
    names of COCO 2014, whose last 16 characters are the name in COCO 2017.
    """
    names: list[str] = []
    if isinstance(image.get("file_name"), str):
        names.append(image["file_name"])
    if isinstance(image.get("coco_url"), str):
        folder, _, name = image["coco_url"].rpartition("/")
        names += [f"{folder.rpartition('/')[2]}/{name}", name]
    if names and Path(names[0]).name.startswith("COCO_"):
        names.append(names[0][-16:])
    if not names:
        raise DatasetError(f'{path}: image {image["id"]} has neither "file_name" nor "coco_url"')
    return tuple(dict.fromkeys(names))


def _class_lists(images: Sequence[dict[str, Any]], key: str) -> tuple[tuple[int, ...], ...] | None:
    if not any(key in image for image in images):
        return None
    return tuple(tuple(image.get(key) or ()) for image in images)


def _boxes(annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    """(M, 4) float64; NaN where there is no list of four numbers."""
    values = [a.get("bbox") for a in annotations]
    try:
        boxes = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.empty(0)
    if boxes.shape == (len(values), 4):
        return boxes
    rows = np.full((len(values), 4), np.nan)
    for row, value in zip(rows, values):
        if isinstance(value, list) and len(value) == 4 and all(type(v) in (int, float) for v in value):
            row[:] = value
    return rows

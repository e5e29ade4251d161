"""Reading a COCO- or LVIS-format json into columns, once for training and evaluation.

The parsed json of COCO train2017 takes gigabytes as Python objects. It is parsed into typed records that leave all else
out, and these are turned into arrays at once (about 100 MB), which are kept for the next reader in this process: the
class count, the registration, the loader and the evaluator read the file once together.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hdetr_d2.images import irregular

from .errors import DatasetError
from .files import read_bytes, resolve_path
from .objects import NO_BOX, content_of_objects, flag_fault, is_size, outline_box, require_text, wrong_size
from .repeated import faults_of_repeats, parse_noting, repeated_keys, require_lists_once
from .schema import Annotation, Category, Content, Image, Outlines
from .table import AnnotationFile, Categories, Fault

_BOM = b"\xef\xbb\xbf"


def read_annotation_file(json_file: str | os.PathLike[str]) -> AnnotationFile:
    """Reads a json, or returns the columns of an earlier call if the file has not changed since.

    Args:
        json_file: see `resolve_path`.

    Raises:
        DatasetError: not there, not json, or not usable as a whole (see `AnnotationFile`).
    """
    path = resolve_path(json_file)
    if kind := irregular(path):
        raise DatasetError(f"{path}: is {kind}, not a json file")
    state = os.stat(path)
    return _read_cached(path, state.st_mtime_ns, state.st_size, state.st_ino)


def read_annotations(content: str | os.PathLike[str] | Mapping[str, Any]) -> AnnotationFile:
    """The same of a file or of what one contains, which messages call "the annotations"."""
    if not isinstance(content, Mapping):
        return read_annotation_file(content)
    with without_cycle_collection():
        return _columns("the annotations", *content_of_objects("the annotations", content))


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
def _read_cached(path: str, mtime_ns: int, size: int, inode: int) -> AnnotationFile:
    with without_cycle_collection():
        return parse_annotations(path, read_bytes(path))


def parse_annotations(source: str, text: bytes) -> AnnotationFile:
    """The columns of a file's bytes.

    Args:
        source: what messages call it.

    Raises:
        DatasetError: see `read_annotation_file`.
    """
    text = text.removeprefix(_BOM)
    require_lists_once(source, text)
    try:
        content = msgspec.json.decode(text, type=Content)
        faults = repeated_keys(source, text, content) | _take_boxes_of_outlines(content, text)
        return _columns(source, content, faults)
    except (msgspec.MsgspecError, OverflowError, RecursionError, UnicodeDecodeError):
        pass  # the slow way says what is wrong with it, and reads NaN, which is no json but is written by some programs
    try:
        parsed = parse_noting(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{source}: cannot be read as json ({error})") from error
    content, faults = content_of_objects(source, parsed)
    return _columns(source, content, faults_of_repeats(source, parsed) | faults)


def _take_boxes_of_outlines(content: Content, text: bytes) -> dict[int, Fault]:
    """Put the box of its outline into every annotation that has none; what is wrong with those, by row."""
    faults: dict[int, Fault] = {}
    rows = [row for row, annotation in enumerate(content.annotations) if annotation.bbox is None]
    outlines = msgspec.json.decode(text, type=Outlines).annotations if rows else []
    for row in rows:
        raw = bytes(outlines[row].segmentation)
        found = outline_box(msgspec.json.decode(raw) if raw else None)
        if isinstance(found, Fault):
            faults[row] = found
            found = NO_BOX
        content.annotations[row].bbox = found
    return faults


def _columns(source: str, content: Content, faults: dict[int, Fault]) -> AnnotationFile:
    """Arrays of records.

    Raises:
        OverflowError: an id does not fit into 64 bits; content that came the slow way has been refused before.
        DatasetError: the file cannot be used as a whole.
    """
    images, annotations = content.images, content.annotations
    if not images:
        raise DatasetError(f"{source}: the list of images is empty")
    count = len(annotations)
    image_ids = _integers(images, "id", len(images))
    boxes = np.fromiter(chain.from_iterable(map(attrgetter("bbox"), annotations)), np.float64, 4 * count).reshape(-1, 4)
    given = [annotation.area for annotation in annotations]
    areas = np.array([np.nan if area is None else area for area in given], dtype=np.float64)
    absent = np.fromiter((area is None for area in given), bool, count)
    with np.errstate(over="ignore", invalid="ignore"):
        areas[absent] = boxes[absent, 2] * boxes[absent, 3]
    _note_flags(annotations, faults)
    _require_unique(source, "image", image_ids)
    return AnnotationFile(
        path=source,
        categories=_categories(source, content.categories),
        image_ids=image_ids,
        image_sizes=_image_sizes(source, images),
        image_names=tuple(_file_names(source, image) for image in images),
        image_not_exhaustive=_class_lists(images, "not_exhaustive_category_ids"),
        image_negative=_class_lists(images, "neg_category_ids"),
        annotation_ids=_annotation_ids(annotations),
        annotation_image_ids=_integers(annotations, "image_id", count),
        annotation_category_ids=_integers(annotations, "category_id", count),
        annotation_boxes=boxes,
        annotation_areas=areas,
        annotation_crowd=np.fromiter((a.iscrowd == 1 for a in annotations), bool, count),
        annotation_ignored=np.fromiter((a.ignore == 1 for a in annotations), bool, count),
        faults=faults,
        without_lists=_without_lists(images),
    )


def _integers(items: Sequence[Any], key: str, count: int) -> NDArray[np.int64]:
    return np.fromiter(map(attrgetter(key), items), np.int64, count)


def _annotation_ids(annotations: Sequence[Annotation]) -> NDArray[np.int64]:
    """Evaluation does without ids, so those that are not there are made up: they follow the largest."""
    given = [annotation.id for annotation in annotations]
    if None not in given:
        return np.array(given, dtype=np.int64)
    largest = min(max((i for i in given if i is not None), default=0), 2**62)
    numbers = iter(range(max(largest, 0) + 1, max(largest, 0) + len(given) + 1))
    return np.array([next(numbers) if i is None else i for i in given], dtype=np.int64)


def _note_flags(annotations: Sequence[Annotation], faults: dict[int, Fault]) -> None:
    for key in ("iscrowd", "ignore"):
        values = list(map(attrgetter(key), annotations))
        if set(values) <= {None, 0, 1}:
            continue
        for row, value in enumerate(values):
            if value not in (None, 0, 1):
                faults.setdefault(row, flag_fault(key, value))


def _require_unique(source: str, what: str, ids: NDArray[np.int64]) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise DatasetError(
            f"{source}: {what} id {values[counts > 1][0]} occurs {counts.max()} times "
            f"({(counts > 1).sum()} {what} ids are not unique); give each its own id"
        )


def _categories(source: str, items: Sequence[Category]) -> Categories:
    if not items:
        raise DatasetError(f"{source}: the list of categories is empty")
    ids = _integers(items, "id", len(items))
    _require_unique(source, "category", ids)
    ordered = [items[i] for i in np.argsort(ids)]
    for category in ordered:
        if isinstance(category.name, str):
            require_text(source, f"category {category.id}", "name", category.name)
        if isinstance(category.image_count, int) and category.image_count < 0:
            raise DatasetError(
                f'{source}: category {category.id} has "image_count": {category.image_count}; it must be the number of '
                "images that show it, or be left out"
            )
    frequencies = [c.frequency for c in ordered if not isinstance(c.frequency, msgspec.UnsetType)]
    counts = [c.image_count for c in ordered if not isinstance(c.image_count, msgspec.UnsetType)]
    return Categories(
        ids=tuple(c.id for c in ordered),
        names=tuple(str(c.id if isinstance(c.name, msgspec.UnsetType) else c.name) for c in ordered),
        frequencies=tuple(frequencies) if len(frequencies) == len(ordered) else None,
        image_counts=tuple(counts) if len(counts) == len(ordered) else None,
    )


def _image_sizes(source: str, images: Sequence[Image]) -> NDArray[np.float64]:
    for image in images:
        for key in ("height", "width"):
            value = getattr(image, key)
            if value is not None and not is_size(value):
                raise wrong_size(source, image.id, key, value)
    sizes = [(np.nan if i.height is None else i.height, np.nan if i.width is None else i.width) for i in images]
    return np.array(sizes, dtype=np.float64).reshape(-1, 2)


def _file_names(source: str, image: Image) -> tuple[str, ...]:
    """Where an image may lie below the image folder; empty where the file does not say it.

    LVIS v1 names files only through ``coco_url`` (its last folder and name, as Detectron2 reads it), v0.5 by the
    names of COCO 2014, whose last 16 characters are the name in COCO 2017.
    """
    names: list[str] = []
    if image.file_name is not None:
        require_text(source, f"image {image.id}", "file_name", image.file_name)
        names.append(image.file_name)
    if image.coco_url is not None:
        require_text(source, f"image {image.id}", "coco_url", image.coco_url)
        folder, _, name = image.coco_url.rpartition("/")
        names += [f"{folder.rpartition('/')[2]}/{name}", name]
    if names and Path(names[0]).name.startswith("COCO_"):
        names.append(names[0][-16:])
    return tuple(dict.fromkeys(name for name in names if name))


def _lists(image: Image, key: str) -> list[int] | None:
    found = getattr(image, key)
    return None if isinstance(found, msgspec.UnsetType) else found


def _class_lists(images: Sequence[Image], key: str) -> tuple[tuple[int, ...], ...] | None:
    found = [_lists(image, key) for image in images]
    if all(each is None for each in found):
        return None
    np.fromiter(chain.from_iterable(each or () for each in found), np.int64)  # OverflowError: beyond 64 bits
    return tuple(tuple(each or ()) for each in found)


def _without_lists(images: Sequence[Image]) -> dict[str, int]:
    found = {}
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        first = next((image.id for image in images if _lists(image, key) is None), None)
        if first is not None:
            found[key] = first
    return found

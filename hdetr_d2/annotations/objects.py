"""A file's content as plain objects, judged item by item: what is wrong is said by item and key.

The slow way, for content that is not as schema.py says, and for content that a program holds as objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from msgspec import UNSET, UnsetType

from .errors import DatasetError
from .files import shown
from .outlines import box_of_outline
from .schema import Annotation, Box, Category, Content, Flag, Image
from .table import Fault

_LARGEST = 2**63
_LARGEST_SIDE = 1e6
NO_BOX: Box = (math.nan, math.nan, math.nan, math.nan)
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def content_of_objects(source: str, content: Any) -> tuple[Content, dict[int, Fault]]:
    """The parts of a file that was parsed.

    Args:
        source: what messages call it.
        content: anything.

    Returns:
        The items, and what is wrong with single annotations, by row; such a row's box is NaN.

    Raises:
        DatasetError: the file cannot be used as a whole.
    """
    if not isinstance(content, Mapping):
        raise DatasetError(
            f"{source}: the top level is a {type(content).__name__}, not an object; this is no COCO json"
        )
    categories, images, annotations = (_items(source, content, k) for k in ("categories", "images", "annotations"))
    read = Content(
        categories=[_category(source, item, row) for row, item in enumerate(categories)],
        images=[_image(source, item, row) for row, item in enumerate(images)],
        annotations=[],
    )
    faults: dict[int, Fault] = {}
    for row, item in enumerate(annotations):
        try:
            read.annotations.append(_annotation(source, item, row))
        except _FaultyAnnotation as faulty:
            read.annotations.append(faulty.annotation)
            faults[row] = faulty.fault
    return read, faults


class _FaultyAnnotation(Exception):
    def __init__(self, annotation: Annotation, fault: Fault) -> None:
        super().__init__(fault.text)
        self.annotation, self.fault = annotation, fault


def _items(source: str, content: Mapping[Any, Any], key: str) -> Sequence[Mapping[Any, Any]]:
    items = content.get(key)
    if not isinstance(items, (list, tuple)):
        raise DatasetError(
            f'{source}: has no list "{key}"; a COCO json has the lists "images", "annotations" and "categories"'
        )
    for position, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DatasetError(f'{source}: entry {position} of "{key}" is {shown(item)}, not an object')
    return items


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def _is_number(value: Any) -> bool:
    """A finite number that a float can hold."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _id(source: str, item: Mapping[Any, Any], row: int, what: str, key: str = "id") -> int:
    value: Any = item.get(key)
    if not _is_integer(value):
        reason = "which is not an integer"
    elif not -_LARGEST <= value < _LARGEST:
        reason = "which does not fit into 64 bits; number them from 1"
    else:
        return int(value)
    own = "" if key == "id" else f" (id {shown(item.get('id'))})"
    raise DatasetError(f'{source}: {what} number {row}{own} has "{key}": {shown(value)}, {reason}')


def require_text(source: str, where: str, key: str, value: str) -> None:
    """A file or class name that a system can use.

    Raises:
        DatasetError: it is empty, or has a character that is none.
    """
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        reason = "which has half of a character in it"
    else:
        if value and "\0" not in value:
            return
        reason = "which has a NUL in it" if value else "which is empty"
    raise DatasetError(f'{source}: {where} has "{key}": {shown(value)}, {reason}')


def _category(source: str, item: Mapping[Any, Any], row: int) -> Category:
    category = Category(id=_id(source, item, row, "category"))
    where = f"category {category.id}"

    def wrong(key: str, wanted: str) -> DatasetError:
        return DatasetError(f'{source}: {where} has "{key}": {shown(item[key])}; it must be {wanted}, or be left out')

    if "name" in item:
        if not isinstance(item["name"], str) and not _is_integer(item["name"]):
            raise wrong("name", "a text")
        category.name = item["name"] if isinstance(item["name"], str) else int(item["name"])
    if "frequency" in item:
        if not isinstance(item["frequency"], str) or item["frequency"] not in ("r", "c", "f"):
            raise wrong("frequency", '"r", "c" or "f"')
        category.frequency = cast(Literal["r", "c", "f"], item["frequency"])
    if "image_count" in item:
        if not _is_integer(item["image_count"]) or not 0 <= item["image_count"] < _LARGEST:
            raise wrong("image_count", "the number of images that show it")
        category.image_count = int(item["image_count"])
    return category


def _image(source: str, item: Mapping[Any, Any], row: int) -> Image:
    identity = _id(source, item, row, "image")
    image = Image(id=identity)
    for key in ("height", "width"):
        value = item.get(key)
        if value is not None:
            if not _is_number(value):
                raise wrong_size(source, identity, key, value)
            setattr(image, key, float(value))
    for key in ("file_name", "coco_url"):
        value = item.get(key)
        if value is not None and not isinstance(value, str):
            raise DatasetError(f'{source}: image {identity} has "{key}": {shown(value)}, which is not a text')
        setattr(image, key, value)
    image.neg_category_ids, image.not_exhaustive_category_ids = (_ids(source, identity, item, key) for key in _LISTS)
    return image


def wrong_size(source: str, identity: int, key: str, value: object) -> DatasetError:
    """The error for an image without a usable height or width."""
    return DatasetError(
        f'{source}: image {identity} has "{key}": {shown(value)}; it must be its size in pixels, an integer from 1 '
        f"to {_LARGEST_SIDE:,.0f}"
    )


def is_size(value: float) -> bool:
    """Whether it can be a height or a width in pixels."""
    return 1 <= value <= _LARGEST_SIDE and value == int(value)


def _ids(source: str, identity: int, item: Mapping[Any, Any], key: str) -> list[int] | UnsetType:
    if key not in item:
        return UNSET
    values = item[key]
    if not isinstance(values, (list, tuple)):
        raise DatasetError(
            f'{source}: image {identity} has "{key}": {shown(values)}, which is not a list of category ids'
        )
    for value in values:
        if not _is_integer(value) or not -_LARGEST <= value < _LARGEST:
            raise DatasetError(
                f'{source}: "{key}" of image {identity} holds {shown(value)}, something other than a category id'
            )
    return [int(value) for value in values]


def _annotation(source: str, item: Mapping[Any, Any], row: int) -> Annotation:
    """One annotation.

    Raises:
        _FaultyAnnotation: a value cannot be read.
        DatasetError: it does not say which one it is, of what, and where.
    """
    annotation = Annotation(
        image_id=_id(source, item, row, "annotation", "image_id"),
        category_id=_id(source, item, row, "annotation", "category_id"),
        bbox=NO_BOX,
        id=None if item.get("id") is None else _id(source, item, row, "annotation"),
    )
    try:
        annotation.iscrowd, annotation.ignore = (_flag(item, key) for key in ("iscrowd", "ignore"))
        annotation.area = _area(item)
        annotation.bbox = _box(item)
    except _Unreadable as error:
        raise _FaultyAnnotation(annotation, error.fault) from None
    return annotation


class _Unreadable(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


def flag_fault(key: str, value: object) -> Fault:
    """The fault of an "iscrowd" or "ignore" that is neither 0 nor 1."""
    return Fault(f'with "{key}" neither 0 nor 1', f'has "{key}": {shown(value)}, which is neither 0 nor 1')


def area_fault(value: object) -> Fault:
    """The fault of an area that is none."""
    return Fault(
        "with an impossible area", f'has "area": {shown(value)}, which is no number of pixels (null: the box\'s)'
    )


def _flag(item: Mapping[Any, Any], key: str) -> Flag:
    value = item.get(key)
    if value is None or isinstance(value, (bool, np.bool_)) or (_is_integer(value) and value in (0, 1)):
        return None if value is None else int(value)
    raise _Unreadable(flag_fault(key, value))


def _area(item: Mapping[Any, Any]) -> float | None:
    value = item.get("area")
    if value is None or _is_number(value):
        return None if value is None else float(value)
    raise _Unreadable(area_fault(value))


def _box(item: Mapping[Any, Any]) -> Box:
    value = item.get("bbox")
    if value is None or (isinstance(value, (list, tuple)) and len(value) == 0):
        found = outline_box(item.get("segmentation"), bbox=shown(value))
        if isinstance(found, Fault):
            raise _Unreadable(found)
        return found
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(_is_number, value)):
        raise _Unreadable(box_fault(value))
    x, y, width, height = (float(number) for number in value)
    return x, y, width, height


def box_fault(value: object) -> Fault:
    """The fault of a box that is no list of four numbers."""
    return Fault("without four finite numbers as box", f"has bbox {shown(value)}, which is not four finite numbers")


def outline_box(segmentation: Any, *, bbox: str = "None") -> Box | Fault:
    """The box of an annotation that has none, from its outline; a fault where there is no usable outline.

    Args:
        segmentation: None where there is none.
        bbox: what there is instead of a box, for the message.
    """
    kind = "without a box"
    if segmentation is None:
        return Fault(kind, f"has bbox {bbox} and no outline to take one from")
    try:
        return box_of_outline(segmentation)[0]
    except ValueError as error:
        return Fault(kind, f"has bbox {bbox}, and its segmentation gives none ({error})")

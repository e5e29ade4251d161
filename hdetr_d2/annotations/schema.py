"""What is read of a file in COCO or LVIS format, as msgspec checks it while it parses; all else is skipped.

A file that fits is read at once into these. One that does not is read again as plain objects (objects.py), which says
what is wrong where.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType

Flag = bool | int | None
Box = tuple[float, float, float, float]


class Image(Struct, gc=False):
    """An entry of "images"; evaluation needs the id alone."""

    id: int
    height: int | float | None = None
    width: int | float | None = None
    file_name: str | None = None
    coco_url: str | None = None
    neg_category_ids: list[int] | UnsetType = UNSET
    not_exhaustive_category_ids: list[int] | UnsetType = UNSET


class Category(Struct, gc=False):
    """An entry of "categories"."""

    id: int
    name: str | int | UnsetType = UNSET
    frequency: Literal["r", "c", "f"] | UnsetType = UNSET
    image_count: int | UnsetType = UNSET


class Annotation(Struct, gc=False):
    """An entry of "annotations". Null is as good as not there."""

    image_id: int
    category_id: int
    bbox: Box | None = None
    id: int | None = None
    area: float | None = None
    iscrowd: Flag = None
    ignore: Flag = None


class Content(Struct):
    """The file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


class Outline(Struct):
    """An annotation's outline, unparsed: most of a file's bytes, and needed only where there is no box."""

    segmentation: Raw = Raw()


class Outlines(Struct):
    """The file again, for these."""

    annotations: list[Outline]

"""The category that Roboflow puts before the classes of a COCO export: it names the project and has no object.

The classes give its name as their ``supercategory``, and it gives "none" as its own. As a class of the model it would
never be learned, and would make the dataset's COCO export another dataset than its YOLO export.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from hdetr_d2.annotations.files import read_bytes

_BOM = b"\xef\xbb\xbf"


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str = ""
    supercategory: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    category_id: int


class _Content(msgspec.Struct):
    categories: list[_Category]
    annotations: list[_Annotation] = []


class _Categories(msgspec.Struct):
    categories: list[_Category]


def umbrella_categories(files: Iterable[Path]) -> frozenset[int]:
    """Ids of the categories that stand for others alone, in every file of a dataset.

    Args:
        files: the annotation files of its splits. One with mistakes has no such category: its reader tells of them.
    """
    found: frozenset[int] | None = None
    for file in files:
        of_file = _of_file(file)
        found = of_file if found is None else found & of_file
        if not found:
            break
    return found or frozenset()


def _of_file(file: Path) -> frozenset[int]:
    try:
        content = read_bytes(file).removeprefix(_BOM)
        categories = msgspec.json.decode(content, type=_Categories).categories
        above = {each.supercategory for each in categories}
        ids = {each.id for each in categories if each.supercategory == "none" and each.name in above - {"none"}}
        if not ids:
            return frozenset()
        used = {each.category_id for each in msgspec.json.decode(content, type=_Content).annotations}
        return frozenset(ids - used)
    except msgspec.DecodeError:
        return frozenset()

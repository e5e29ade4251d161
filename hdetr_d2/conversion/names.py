"""Names of classes, as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

from hdetr_d2.checkpoint.classes import coco_class_names, known_classes

from .request import ConversionError


def read_names(source: str) -> tuple[list[str], list[int]]:
    """Class names by row and their category ids, from a json list of names or a dataset's json; "coco" is COCO's 80.

    Raises:
        ConversionError: the file is neither.
    """
    if source == "coco":
        return known_classes(len(coco_class_names()))
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{source}: {error}") from error
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content, list(range(1, len(content) + 1))
    from hdetr_d2.data import read_dataset_info

    info = read_dataset_info(source)
    return list(info.names), list(info.category_ids)


def guessed_names(count: int) -> tuple[list[str], list[int], bool]:
    """Names and ids for a number of classes of which nothing else is known, and whether they are more than numbers."""
    try:
        names, ids = known_classes(count)
    except ValueError:
        return [f"class {index}" for index in range(count)], list(range(count)), False
    return names, ids, True

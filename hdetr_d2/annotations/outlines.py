"""The box of an outline, for annotations that have no box of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]


def box_of_outline(segmentation: Any) -> tuple[Box, tuple[int, int] | None]:
    """The smallest box around polygons or a run-length encoded mask.

    Args:
        segmentation: as in COCO: lists of x, y, x, y, ..., or {"size": [height, width], "counts": a list or a text}.

    Returns:
        x, y, width, height in pixels, and the mask's (height, width), None for polygons.

    Raises:
        ValueError: it is neither, or it is empty.
    """
    if isinstance(segmentation, Mapping):
        return _box_of_mask(segmentation)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, (str, bytes)) or not segmentation:
        raise ValueError("no outline")
    for polygon in segmentation:
        if not isinstance(polygon, Sequence) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_number, polygon)):
            raise ValueError("a polygon is not a list of at least three points")
    x = list(chain.from_iterable(polygon[0::2] for polygon in segmentation))
    y = list(chain.from_iterable(polygon[1::2] for polygon in segmentation))
    left, top = float(min(x)), float(min(y))
    return (left, top, float(max(x)) - left, float(max(y)) - top), None


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _box_of_mask(mask: Mapping[str, Any]) -> tuple[Box, tuple[int, int]]:
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, Sequence) or len(size) != 2 or not all(type(v) is int and 0 < v < 10**6 for v in size):
        raise ValueError("a mask's size is not [height, width]")
    height, width = size
    if isinstance(counts, (str, bytes)):
        runs = _uncompressed(counts.encode("latin-1") if isinstance(counts, str) else counts)
    elif isinstance(counts, Sequence) and all(type(v) is int for v in counts):
        runs = list(counts)
    else:
        raise ValueError("a mask's counts are neither a list of integers nor a text")
    if not runs or min(runs) < 0 or sum(runs) != height * width:
        raise ValueError("a mask's counts do not add up to its size")
    # pixels are counted down the columns; every second run is of the object
    ends = np.cumsum(np.array(runs, dtype=np.int64))
    starts = np.concatenate([[0], ends[:-1]])[1::2]
    ends = ends[1::2]
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        raise ValueError("the mask is empty")
    left, right = starts[0] // height, last[-1] // height
    over_columns = bool((starts // height != last // height).any())
    top = 0 if over_columns else (starts % height).min()
    bottom = height - 1 if over_columns else (last % height).max()
    return (float(left), float(top), float(right - left + 1), float(bottom - top + 1)), (height, width)


def _uncompressed(text: bytes) -> list[int]:
    """The runs of COCO's compressed text: 5 bits a character, from the fourth on differences to the last but one."""
    runs: list[int] = []
    place = value = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or place > 60:
            raise ValueError("a mask's counts are not COCO's text")
        value |= (bits & 31) << place
        place += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << place
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        place = value = 0
    if place:
        raise ValueError("a mask's counts end within a number")
    return runs

"""Images that are there several times: the same file, or another file of the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .pictures import Looked

MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 3.0, 12.0
"""Of 255: two small pictures that differ by no more are of one picture, saved twice or resized."""

FLATTEST = 2.0
"""Standard deviation within the channels of a small picture of one colour, by which nothing is told apart."""

_BANDS, _BAND_BITS = 4, 16
_LARGEST_BUCKET = 500


def same_files(looked: Sequence[Looked]) -> list[tuple[int, int]]:
    """(first, later) rows of images whose files are equal byte for byte."""
    first: dict[str, int] = {}
    pairs = []
    for row, each in enumerate(looked):
        if each.digest:
            earlier = first.setdefault(each.digest, row)
            if earlier != row:
                pairs.append((earlier, row))
    return pairs


def same_pictures(looked: Sequence[Looked]) -> list[tuple[int, int]]:
    """(first, later) rows of images that look the same and are different files.

    Candidates share 16 of the 64 bits of their outlines, as any two do that differ in at most three of them; their
    small pictures decide.
    """
    if not looked:
        return []
    small = np.stack([each.small for each in looked]).reshape(len(looked), -1).astype(np.int16)
    later: dict[int, int] = {}
    for rows in _buckets(looked):
        for position, row in enumerate(rows[1:].tolist(), start=1):
            difference = np.abs(small[rows[:position]] - small[row])
            alike = (difference.mean(axis=1) <= MEAN_DIFFERENCE) & (difference.max(axis=1) <= LARGEST_DIFFERENCE)
            for earlier in rows[:position][alike].tolist():
                if looked[earlier].digest != looked[row].digest:
                    later[row] = min(earlier, later.get(row, earlier))
                    break
    return sorted((earlier, row) for row, earlier in later.items())


def _buckets(looked: Sequence[Looked]) -> Iterator[NDArray[np.int64]]:
    """Rows of images that may look the same, in rising order."""
    readable = [row for row, each in enumerate(looked) if each.digest and each.small.std(axis=(0, 1)).max() > FLATTEST]
    for band in range(_BANDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for row in readable:
            buckets[looked[row].outline >> (band * _BAND_BITS) & (1 << _BAND_BITS) - 1].append(row)
        for rows in buckets.values():
            if len(rows) > 1:
                yield np.array(rows[:_LARGEST_BUCKET], dtype=np.int64)

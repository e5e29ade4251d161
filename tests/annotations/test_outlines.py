"""Boxes of outlines, against pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hdetr_d2.annotations.outlines import box_of_outline


@pytest.mark.parametrize("seed", range(12))
def test_the_box_of_a_mask_is_pycocotools_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2).tolist()
    mask = rng.random((height, width)) < (0.02, 0.3, 0.9)[seed % 3]
    mask[rng.integers(height), rng.integers(width)] = True
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    rows, columns = np.nonzero(mask)
    expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert coco_mask.toBbox(compressed).tolist() == expected  # the oracle's oracle
    flat = mask.flatten(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    runs = [0, *runs] if flat[0] else runs
    for counts in (compressed["counts"].decode(), compressed["counts"], runs):
        box, size = box_of_outline({"size": [height, width], "counts": counts})
        assert list(box) == expected
        assert size == (height, width)


@pytest.mark.parametrize(
    "outline",
    [
        [],
        "polygon",
        5,
        [[]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, True]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, 10**400]],
        [1, 2, 3, 4, 5, 6],
        {},
        {"size": [5, 5]},
        {"size": [5, 5], "counts": [25]},
        {"size": [5, 5], "counts": [5, 5]},
        {"size": [5, 5], "counts": [-5, 30]},
        {"size": [5, 5], "counts": [2.5, 22.5]},
        {"size": [0, 5], "counts": []},
        {"size": [5, 5], "counts": ""},
        {"size": [5, 5], "counts": "~~~~~~~~~~~~~~~~~~~~~~"},
        {"size": [5, 5], "counts": "é"},
        {"size": [10**9, 10**9], "counts": [0, 10**18]},
    ],
)
def test_what_is_no_outline_is_refused(outline: Any) -> None:
    with pytest.raises(ValueError, match=r"outline|polygon|mask"):
        box_of_outline(outline)

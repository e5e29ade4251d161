"""Planted errors: as many as asked for, each what its record says, and everything else as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdetr_d2.data import DatasetError, ensure_generated
from hdetr_d2.data.generated.label_errors import KINDS, plant


def content(objects: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {
        "images": [{"id": image, "width": 100, "height": 80} for image in range(1, 41)],
        "categories": [{"id": identity, "name": str(identity)} for identity in (1, 2, 3)],
        "annotations": [
            {
                "id": index + 1,
                "image_id": int(rng.integers(1, 41)),
                "category_id": int(rng.integers(1, 4)),
                "bbox": [*rng.integers(0, 40, 2).tolist(), *rng.integers(12, 40, 2).tolist()],
            }
            for index in range(objects)
        ],
    }


def iou(one: list[float], other: list[float]) -> float:
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(np.add(one[:2], one[2:]), np.add(other[:2], other[2:]))
    inner = float(np.prod(np.clip(high - low, 0, None)))
    return inner / (one[2] * one[3] + other[2] * other[3] - inner)


def test_every_kind_is_planted_as_often_as_asked_for_and_is_what_it_says() -> None:
    before = content(2000)
    after, errors = plant(before, dict.fromkeys(KINDS, 0.1), seed=3)
    by_id = {annotation["id"]: annotation for annotation in after["annotations"]}
    assert list(by_id) == list(range(1, len(by_id) + 1))
    for kind in KINDS:
        of_kind = [error for error in errors if error["kind"] == kind]
        assert 140 <= len(of_kind) <= 260
        for error in of_kind:
            faulty = by_id.get(error["annotation_id"])
            if kind == "missing":
                assert error["annotation_id"] is None
                continue
            assert faulty is not None
            assert faulty["image_id"] == error["image_id"]
            overlap = iou(faulty["bbox"], error["bbox"])
            assert (faulty["category_id"] != error["category_id"]) == (kind == "wrong_class")
            if kind == "wrong_class":
                assert overlap == 1.0
            elif kind == "doubled":
                assert 0.5 < overlap < 1.0
            else:
                assert overlap < 0.8
    sound = {error["annotation_id"] for error in errors}
    same = [(a["image_id"], tuple(a["bbox"]), a["category_id"]) for a in before["annotations"]]
    kept = [(a["image_id"], tuple(a["bbox"]), a["category_id"]) for i, a in by_id.items() if i not in sound]
    assert set(kept) <= set(same)


def test_the_training_file_has_errors_and_nothing_else_changes(tmp_path: Path) -> None:
    small: dict[str, Any] = {"num_train": 12, "num_val": 3, "image_size": 64, "num_classes": 5, "progress": False}
    clean = ensure_generated(**small, cache_folder=tmp_path, num_workers=1)
    faulty = ensure_generated(**small, label_errors={"wrong_class": 0.5}, cache_folder=tmp_path, num_workers=1)
    assert not clean.errors.exists()
    errors = json.loads(faulty.errors.read_text())
    assert errors
    assert clean.json("val").read_bytes() == faulty.json("val").read_bytes()
    one, other = (json.loads(files.json("train").read_text())["annotations"] for files in (clean, faulty))
    changed = [a["id"] for a, b in zip(one, other, strict=True) if a != b]
    assert changed == [error["annotation_id"] for error in errors]


@pytest.mark.parametrize(
    "change",
    [
        {"label_errors": {"wrong_class": 1.5}},
        {"label_errors": {"wrong_class": -0.1}},
        {"label_errors": {"wrong": 0.1}},
        {"label_errors": {"missing": 0.6, "doubled": 0.6}},
        {"label_errors": {"missing": 0.1}, "format": "lvis", "num_classes": 5},
        {"label_errors": {"missing": 0.1}, "num_classes": 1},
    ],
)
def test_senseless_shares_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="label_errors"):
        ensure_generated(num_train=2, num_val=1, image_size=64, **change, cache_folder=tmp_path)

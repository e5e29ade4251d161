"""A category of a COCO export that is no class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.annotations.layouts import prepare_dataset
from hdetr_d2.annotations.layouts.umbrella import umbrella_categories
from hdetr_d2.data.inspection import inspect_dataset
from tests.annotations.layouts import copies

UMBRELLA = {"id": 0, "name": "animals", "supercategory": "none"}
CLASSES = [{"id": 1, "name": "cat", "supercategory": "animals"}, {"id": 2, "name": "dog", "supercategory": "animals"}]


def write(path: Path, categories: Any, labels: Any = (1, 2)) -> Path:
    annotations = [{"id": row, "image_id": 1, "category_id": label} for row, label in enumerate(labels)]
    path.write_text(json.dumps({"images": [], "annotations": annotations, "categories": categories}))
    return path


def test_the_name_of_the_project_is_no_class(tmp_path: Path) -> None:
    files = [write(tmp_path / name, [UMBRELLA, *CLASSES]) for name in ("train.json", "val.json")]
    assert umbrella_categories(files) == {0}


@pytest.mark.parametrize(
    ("categories", "labels"),
    [
        ([UMBRELLA, *CLASSES], (0, 1)),  # it has an object
        ([{**UMBRELLA, "supercategory": "things"}, *CLASSES], (1, 2)),
        ([UMBRELLA, *({**each, "supercategory": "none"} for each in CLASSES)], (1, 2)),  # flat
        ([{**UMBRELLA, "name": "none"}, {**CLASSES[0], "supercategory": "none"}], (1,)),
        ([UMBRELLA, *({"id": each["id"], "name": each["name"]} for each in CLASSES)], (1, 2)),
        ([{"id": 1, "name": "person", "supercategory": "person"}], ()),  # as COCO has it
        ([UMBRELLA, "cat"], ()),
        (None, ()),
    ],
)
def test_other_categories_are_classes(categories: Any, labels: tuple[int, ...], tmp_path: Path) -> None:
    assert not umbrella_categories([write(tmp_path / "train.json", categories, labels)])


def test_an_object_of_one_split_makes_it_a_class_of_all(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "train.json", [UMBRELLA, *CLASSES]),
        write(tmp_path / "val.json", [UMBRELLA, *CLASSES], (0,)),
    ]
    assert not umbrella_categories(files)


def test_a_coco_export_has_the_classes_of_the_yolo_export(tmp_path: Path) -> None:
    exports = [copies.write_roboflow_coco(tmp_path / "coco"), copies.write_roboflow_yolo(tmp_path / "yolo")]
    for number, export in enumerate(exports):
        part = prepare_dataset(export, tmp_path / f"out{number}").splits["train"]
        assert [each["name"] for each in json.loads(part.json.read_text())["categories"]] == list(copies.NAMES)
        inspected = inspect_dataset(export).splits[0]
        assert inspected.class_names == copies.NAMES
        assert [inspected.class_names[label] for label in inspected.box_classes] == ["cat", "ox", "dog"]

"""What is found in datasets of every layout, each fault put in by hand."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdetr_d2.data.inspection import Inspection, as_json, as_text, inspect_dataset
from hdetr_d2.errors import UserError
from tests.annotations.layouts import copies


def paint(root: Path) -> Path:
    """Give every image of a dataset content of its own."""
    for path in sorted(root.rglob("*.png")):
        with Image.open(path) as image:
            size = image.size[::-1]
        seed = zlib.crc32(path.name.encode())
        coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return paint(copies.write_coco(tmp_path / "data"))


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return paint(copies.write_yolo(tmp_path / "data"))


def kinds(inspection: Inspection, severity: str = "hurts") -> dict[str, int]:
    return {each.kind: each.count for each in inspection.findings if each.severity == severity}


def example(inspection: Inspection, kind: str) -> str:
    (finding,) = [each for each in inspection.findings if each.kind == kind]
    return finding.examples[0]


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", copies.WRITERS)
def test_a_sound_dataset_of_any_layout_hurts_nowhere_and_is_counted(kind: str, tmp_path: Path) -> None:
    path = copies.WRITERS[kind](tmp_path / "data")
    paint(tmp_path / "data")
    inspection = inspect_dataset(path)
    assert kinds(inspection) == {}
    assert kinds(inspection, "note") == {"empty-images": 1}
    sizes = {split.name: (len(split.images), len(split.boxes)) for split in inspection.splits}
    assert sizes == {"train": (3, 3), "val": (2, 3)}
    assert "c.png" in as_text(inspection)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bbox": [60, 40, 50, 50]}, "exceeds its image"),
        ({"bbox": [1, 2, -5, 5]}, "has width -5.0"),
        ({"category_id": 77}, "category_id 77"),
        ({"image_id": 77}, "does not list"),
        ({"bbox": [1, 2, "x", 3]}, "bbox"),
    ],
)
def test_every_wrong_annotation_of_a_json_is_named(coco: Path, entry: dict[str, Any], message: str) -> None:
    wrong = {"image_id": 10, "category_id": 0, "bbox": [1, 1, 5, 5], **entry}
    change(coco / "train.json", lambda content: content["annotations"].extend([{"id": 8, **wrong}, {"id": 9, **wrong}]))
    inspection = inspect_dataset(coco)
    (finding,) = [each for each in inspection.findings if each.kind == "wrong-rows"]
    assert finding.count == 2 == len(finding.examples)
    assert "train.json: annotation 8 " in finding.examples[0] and "annotation 9 " in finding.examples[1]
    assert message in finding.examples[1]


def test_every_wrong_line_of_a_label_file_is_named(yolo: Path) -> None:
    file = yolo / "labels" / "train" / "a.txt"
    file.write_text(file.read_text() + "9 0.5 0.5 0.1 0.1\n0 0.5 0.5\n0 30 40 10 10\n")
    inspection = inspect_dataset(yolo)
    assert kinds(inspection) == {"wrong-rows": 3}
    (finding,) = [each for each in inspection.findings if each.kind == "wrong-rows"]
    assert [f"{file}, line {number}" in text for number, text in zip((3, 4, 5), finding.examples)] == [True] * 3


def test_wrong_objects_of_a_voc_file_are_named(tmp_path: Path) -> None:
    path = copies.WRITERS["voc"](tmp_path / "data")
    paint(tmp_path / "data")
    file = next(file for file in (tmp_path / "data").rglob("a.xml"))
    file.write_text(file.read_text().replace("</annotation>", "<object><name>cat</name></object></annotation>"))
    inspection = inspect_dataset(path)
    assert kinds(inspection) == {"wrong-rows": 1}
    assert f"{file}, object 3" in example(inspection, "wrong-rows")


def test_label_files_without_image_and_images_without_entry_are_named(yolo: Path, tmp_path: Path) -> None:
    (yolo / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert example(inspect_dataset(yolo), "annotations-without-image").endswith("gone.txt")
    other = paint(copies.write_coco(tmp_path / "other"))
    Image.new("RGB", (30, 30)).save(other / "images" / "extra.png")
    (other / "images" / "a.png").unlink()
    inspection = inspect_dataset(other)
    assert kinds(inspection) == {"missing-images": 1}
    assert example(inspection, "missing-images").endswith("a.png")
    assert example(inspection, "unlisted-images").endswith("extra.png")


def test_boxes_that_are_there_twice_are_found_by_class(coco: Path) -> None:
    def edit(content: Any) -> None:
        first = content["annotations"][0]
        content["annotations"] += [{**first, "id": 8}, {**first, "id": 9, "category_id": 1}]

    change(coco / "train.json", edit)
    inspection = inspect_dataset(coco)
    assert kinds(inspection) == {"duplicate-boxes": 1}
    assert "a.png: cat at (4, 6, 24, 16)" in example(inspection, "duplicate-boxes")


def test_odd_sizes_are_noted(coco: Path) -> None:
    boxes = [[0, 0, 64, 48], [5, 5, 2, 2], [0, 20, 64, 1], [0, 30, 63, 4.5]]

    def edit(content: Any) -> None:
        content["images"][0].update(width=200, height=48)
        for index, box in enumerate([[0, 0, 200, 48], *boxes[1:3], [0, 30, 199, 5]]):
            content["annotations"].append({"id": 20 + index, "image_id": 10, "category_id": 0, "bbox": box})

    change(coco / "train.json", edit)
    Image.new("RGB", (200, 48)).save(coco / "images" / "a.png")
    noted = kinds(inspect_dataset(coco), "note")
    assert (noted["whole-image-boxes"], noted["tiny-boxes"], noted["flat-boxes"]) == (1, 2, 1)


def test_an_image_of_both_splits_is_found_as_file_and_as_picture(yolo: Path) -> None:
    train, val = yolo / "images" / "train", yolo / "images" / "val"
    shutil.copy(train / "a.png", val / "copy.png")
    inspection = inspect_dataset(yolo)
    assert kinds(inspection) == {"duplicate-images-between-splits": 1}
    assert example(inspection, "duplicate-images-between-splits") == f"{train / 'a.png'} = {val / 'copy.png'}"
    with Image.open(train / "a.png") as image:
        image.resize((96, 72), Image.Resampling.BICUBIC).save(val / "copy.png")
    assert kinds(inspect_dataset(yolo)) == {"similar-images-between-splits": 1}
    with Image.open(train / "a.png") as image:
        image.save(val / "copy.jpg", quality=90)
    (val / "copy.png").unlink()
    assert kinds(inspect_dataset(yolo)) == {"similar-images-between-splits": 1}
    assert kinds(inspect_dataset(yolo, pixels=False)) == {}


def test_copies_within_a_split_are_only_noted(yolo: Path) -> None:
    shutil.copy(yolo / "images" / "train" / "a.png", yolo / "images" / "train" / "copy.png")
    inspection = inspect_dataset(yolo)
    assert kinds(inspection) == {} and kinds(inspection, "note")["duplicate-images"] == 1


def test_images_of_one_colour_are_not_taken_for_each_other(tmp_path: Path) -> None:
    assert kinds(inspect_dataset(copies.write_yolo(tmp_path / "data"))).keys() <= {"duplicate-images-between-splits"}


def test_broken_images_and_images_of_another_size_hurt(coco: Path) -> None:
    Image.new("RGB", (64, 47)).save(coco / "images" / "a.png")
    whole = (coco / "images" / "b.png").read_bytes()
    (coco / "images" / "b.png").write_bytes(whole[: len(whole) // 2])
    assert kinds(inspect_dataset(coco)) == {"unusable-images": 2}


def test_classes_that_differ_or_have_no_object_hurt(coco: Path) -> None:
    change(coco / "val.json", lambda content: content["categories"][0].update(name="lion"))
    change(coco / "train.json", lambda content: content["categories"].append({"id": 9, "name": "yak"}))
    assert kinds(inspect_dataset(coco)) == {"different-classes": 3, "classes-without-objects": 1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "train.json").write_text("{"),
        lambda root: (root / "val.json").write_text("{"),
        lambda root: shutil.rmtree(root / "images"),
        lambda root: [path.write_bytes(b"no image") for path in (root / "images").iterdir()],
        lambda root: change(root / "train.json", lambda content: content.update(annotations=[])),
        lambda root: shutil.rmtree(root),
    ],
)
def test_what_nothing_can_be_trained_with_is_an_error(coco: Path, spoil: Callable[[Path], object]) -> None:
    spoil(coco)
    with pytest.raises(UserError):
        inspect_dataset(coco)


def test_the_long_tail_is_counted_in_images(coco: Path) -> None:
    def edit(content: Any) -> None:
        for number in range(11):
            content["images"].append({"id": 100 + number, "file_name": "a.png", "width": 64, "height": 48})
            entry = {"id": 100 + number, "image_id": 100 + number, "category_id": 0, "bbox": [1, 1, 9, 9]}
            content["annotations"].append(entry)

    change(coco / "train.json", edit)
    content = as_json(inspect_dataset(coco, pixels=False))
    assert [(each["images"], each["group"]) for each in content["splits"][0]["classes"]] == [
        (12, "c"),
        (1, "r"),
        (1, "r"),
    ]

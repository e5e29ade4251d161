"""Files that are not what their names say: they are told by name, or do not get in the way of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hdetr_d2.annotations import DatasetError
from hdetr_d2.annotations.layouts import LayoutError, prepare_dataset, recognise
from tests.annotations.layouts import copies

NO_TEXT = b"\xff\xfe\x00\x80" * 20


def yaml_with(root: Path, text: str) -> Path:
    copies.write_yolo(root)
    (root / "data.yaml").write_text(text)
    return root


def voc_list(root: Path) -> Path:
    copies.write_voc(root)
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(NO_TEXT)
    return root


def darknet_names(root: Path) -> Path:
    copies.write_yolo(root)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_bytes(NO_TEXT)
    return root


STRANGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an image as a list": (
        lambda root: yaml_with(root, "train: images/train/a.png\nval: images/val\nnames: [a, b, c]"),
        r"a\.png: cannot be read as text",
    ),
    "classes by number and by word": (
        lambda root: yaml_with(root, "train: images/train\nval: images/val\nnames: {0: a, b: c}"),
        "names must be numbered",
    ),
    "a class that YAML takes for false": (
        lambda root: yaml_with(root, "train: images/train\nval: images/val\nnames: [yes please, no, maybe]"),
        "names: number 1 is False",
    ),
    "a class without a name": (
        lambda root: yaml_with(root, "train: images/train\nval: images/val\nnames: [a, , b]"),
        "cannot be read as YAML|number 1 is None",
    ),
    "a date that there is not": (
        lambda root: yaml_with(root, "train: 2020-13-45\nnames: [a]"),
        r"data\.yaml: cannot be read as YAML",
    ),
    "a path that is too long": (
        lambda root: yaml_with(root, f"train: {'x' * 5000}\nnames: [a]"),
        "does not exist",
    ),
    "the home of nobody": (
        lambda root: yaml_with(root, "train: ~nobody_of_this_name/images\nnames: [a]"),
        "does not exist",
    ),
    "a list of images that is no text": (voc_list, r"train\.txt: cannot be read as text"),
    "a list of classes that is no text": (darknet_names, r"classes\.txt: cannot be read as text"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_it_is_told_by_name(kind: str, tmp_path: Path) -> None:
    write, message = STRANGE[kind]
    with pytest.raises(LayoutError, match=message):
        prepare_dataset(write(tmp_path / "data"), tmp_path / "out")


@pytest.mark.parametrize("path", ["~nobody_of_this_name/photos", "x" * 5000])
def test_a_path_that_nobody_can_have_does_not_exist(path: str) -> None:
    with pytest.raises(LayoutError, match="there is no such file or folder"):
        recognise(path)


def test_pipes_folders_and_other_yaml_files_do_not_get_in_the_way(tmp_path: Path) -> None:
    root = copies.write_coco(tmp_path / "data")
    for name in ("pipe.json", "pipe.yaml"):
        os.mkfifo(root / name)
    (root / "folder.json").mkdir()
    (root / "folder.yaml").mkdir()
    (root / "template.yaml").write_text("a: {{ b }}\n  c: [")
    layout = recognise(root)
    assert layout.name == "coco"
    assert set(layout.splits) == {"train", "val"}


def test_an_image_name_that_is_too_long_is_not_found(tmp_path: Path) -> None:
    root = copies.write_coco(tmp_path / "data")
    content = json.loads((root / "train.json").read_text())
    for image in content["images"]:
        image["file_name"] = "x" * 5000
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(LayoutError, match="are not found below"):
        recognise(root)


@pytest.mark.parametrize(
    "change",
    [
        {"images": [1, 2, 3]},
        {"annotations": None},
        {"annotations": [{"id": 1, "category_id": 0, "bbox": [1, 1, 2, 2]}]},
        {"images": [{"file_name": "a.png", "width": 64, "height": 48}, {"file_name": "b.png"}]},
    ],
)
def test_lists_that_cannot_be_divided_are_told_by_their_reader(change: dict[str, object], tmp_path: Path) -> None:
    root = copies.only_train(tmp_path / "data", "coco")
    content = json.loads((root / "train.json").read_text())
    (root / "train.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(DatasetError, match=r"train\.json"):
        prepare_dataset(root, tmp_path / "out")

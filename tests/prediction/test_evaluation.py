"""What is wrong with a dataset of any layout is told of the user's own files, never of a copy that was made of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.annotations.layouts import CocoSplit
from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.detections import named
from hdetr_d2.errors import DatasetError, UserError
from hdetr_d2.evaluation.measuring import Measurement
from hdetr_d2.prediction.evaluation import evaluate_model
from tests.annotations.layouts.copies import NAMES, write_coco, write_voc, write_yolo


class Blind:
    """Knows the classes and detects nothing."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.class_names = names
        self.description: Any = self
        self.names_known = True
        self.images = 0

    def detect(self, pixels: Sequence[Any]) -> list[DetectedInstances]:
        found = []
        self.images += len(pixels)
        for image in pixels:
            nothing = Instances((image.shape[0], image.shape[1]))
            nothing.pred_boxes, nothing.scores = Boxes(torch.zeros(0, 4)), torch.zeros(0)
            nothing.pred_classes = torch.zeros(0, dtype=torch.int64)
            found.append(named(nothing, self.class_names))
        return found


def write_umbrella(root: Path) -> Path:
    """As Roboflow writes it: a category above the others, of which a copy without it is made."""
    write_coco(root)
    for split in ("train", "val"):
        file = root / f"{split}.json"
        content = json.loads(file.read_text())
        above = [{"id": 9, "name": "animals", "supercategory": "none"}]
        classes = [{**each, "supercategory": "animals"} for each in content["categories"]]
        file.write_text(json.dumps({**content, "categories": above + classes}))
    return root


def end_early(root: Path) -> None:
    image = next(root.rglob("d.png"))
    image.write_bytes(image.read_bytes()[:-30])


def shrink_box(root: Path) -> None:
    for labels in root.rglob("d.txt"):
        labels.write_text("1 0.5 0.5 1e-10 0.2\n")
    for file in root.rglob("val.json"):
        content = json.loads(file.read_text())
        content["annotations"][0]["bbox"][2] = 0
        file.write_text(json.dumps(content))


LAYOUTS = {"yolo": write_yolo, "voc": write_voc, "umbrella": write_umbrella}


def told(data: Path, detector: Blind | None = None, wanted: Measurement | None = None) -> str:
    with pytest.raises(UserError) as raised:
        evaluate_model(detector or Blind(), str(data), wanted=wanted)
    line = str(raised.value)
    assert tempfile.gettempdir() not in line.replace(str(data), "")
    assert str(data) in line
    return line


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("change", "detector", "wanted", "expected"),
    [
        (None, Blind(["cat", "ox"]), None, "has classes that the model does not know, dog"),
        (None, None, Measurement(style="lvis"), "is not in LVIS format"),
        (end_early, None, None, "cannot be read as an image"),
    ],
    ids=["classes", "style", "image"],
)
def test_mistakes_are_told_of_the_users_files(
    layout: str,
    change: Callable[[Path], None] | None,
    detector: Blind | None,
    wanted: Measurement | None,
    expected: str,
    tmp_path: Path,
) -> None:
    data = LAYOUTS[layout](tmp_path / "own")
    if change is not None:
        change(data)
    detector = detector or Blind()
    assert expected in told(data, detector, wanted)
    assert detector.images == 0 or change is end_early  # annotations are judged before the work


@pytest.mark.parametrize(("layout", "named"), [("yolo", "d.txt, line 1"), ("umbrella", "val.json: annotation 1")])
def test_a_box_that_is_nothing_is_told_with_its_file(layout: str, named: str, tmp_path: Path) -> None:
    data = LAYOUTS[layout](tmp_path / "own")
    shrink_box(data)
    assert named in told(data)


def test_a_class_without_a_name_is_told_with_the_file_that_names_classes(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "own")
    for file in data.rglob("data.yaml"):
        file.write_text(file.read_text().replace("dog", "''"))
    assert "data.yaml: names: number 1" in told(data)


def test_what_is_told_of_the_users_own_file_stays_as_it_is(tmp_path: Path) -> None:
    own = CocoSplit(tmp_path / "own.json", tmp_path)
    copy = CocoSplit(tmp_path / "copy.json", tmp_path, tmp_path / "own.json")
    for split in (own, copy):
        with pytest.raises(DatasetError, match=rf"^{tmp_path}/own\.json: is empty$"), split.told():
            raise DatasetError(f"{split.json}: is empty")

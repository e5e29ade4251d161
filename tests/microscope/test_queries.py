"""What is seen of a tiny model's queries is what it computes, and the page shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdetr_d2.annotations import DatasetError
from hdetr_d2.description import ModelDescription
from hdetr_d2.detector import Detector
from hdetr_d2.microscope.queries import LookedAt, QueriesError, look, repeated
from hdetr_d2.microscope.queries_page import render
from tests.modeling.family import build


def detector(name: str) -> Detector:
    torch.manual_seed(0)
    model = build(name)
    names = tuple(f"<c{index}>" for index in range(model.num_classes))
    ids = tuple(range(1, len(names) + 1))
    description = ModelDescription(config="", class_names=names, category_ids=ids, score_threshold=0.0)
    return Detector(model=model, description=description, augmentations=[], device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": 96, "height": 64}],
        "categories": [{"id": index + 1, "name": f"c{index}"} for index in range(3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 10, 30, 20]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 30, 20, 30]},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path / "one.png"


@pytest.mark.parametrize("name", ["h_deformable_detr", "dino", "detr", "deformable_detr"])
def test_the_page_has_what_a_model_has(name: str, image: Path) -> None:
    looked = look(detector(name), image, image.parent / "train.json")
    layers, queries = looked.boxes.shape[:2]
    assert layers == 3
    assert (looked.points is None) == (name == "detr")
    if looked.points is not None and looked.weights is not None:
        np.testing.assert_allclose(looked.weights.sum(1), 1.0, rtol=1e-4)
        assert looked.points.shape[:2] == looked.weights.shape
    assert (looked.noised is not None) == (name == "dino")
    assert sorted(match.label for match in looked.matches) == [0, 1]
    text = render(looked, "a<b>.png", number=3, distinct=0.7)
    assert text.count("<b>query ") == min(3, queries)
    assert ('id="proposals"' in text) == looked.are_proposals
    assert ('id="noised"' in text) == (name == "dino")
    if looked.are_proposals:
        counts = [int(number) for number in re.findall(r"(?:themselves|\(IoU\)): <b>(\d+)</b>", text)]
        assert len(counts) == 2
        assert sum(counts) == queries
    width, height = (float(side) for side in re.findall(r'viewBox="0 0 (\d+) (\d+)"', text)[0])
    for box in re.findall(r'x="([-.\d]+)" y="([-.\d]+)" width="([-.\d]+)" height="([-.\d]+)"', text):
        x, y, wide, high = map(float, box)
        assert x >= 1
        assert y >= 1
        assert x + wide <= width
        assert y + high <= height
    assert "&lt;c1&gt;" in text
    assert "<c1>" not in text
    assert "a<b>" not in text


def test_looking_changes_nothing(image: Path) -> None:
    of = detector("dino")
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    one = look(of, image)
    two = look(of, image)
    assert one.noised is None
    np.testing.assert_array_equal(one.boxes, two.boxes)
    assert not of.model.training
    assert not of.model.transformer.training
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    found = of(str(image))
    assert float(found.scores.max()) == pytest.approx(float(one.scores.max()), abs=1e-5)


def test_an_image_without_annotations_and_a_foreign_model_are_refused(image: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    of = detector("h_deformable_detr")
    with pytest.raises(DatasetError, match=r"has no image other\.png"):
        look(of, tmp_path / "other.png", image.parent / "train.json")
    foreign = detector("h_deformable_detr")
    foreign.model = torch.nn.Identity()
    with pytest.raises(QueriesError, match="Identity"):
        look(foreign, image)


def test_a_box_repeats_only_what_stands_for_itself() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 7.5], [30, 30, 40, 40]], dtype=np.float64)
    assert repeated(boxes, 0.8) == [False, True, False, False]
    assert repeated(boxes, 0.7) == [False, True, True, False]
    assert isinstance(LookedAt.__dataclass_fields__["matches"].default, tuple)

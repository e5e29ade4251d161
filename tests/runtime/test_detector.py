"""An exported model without PyTorch detects what its model does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdetr_d2 import Detector
from hdetr_d2.errors import UserError
from hdetr_d2.images import ImageInputError
from hdetr_d2.runtime import RuntimeDetector, RuntimeModelError
from tests.conftest import EXPORTED_FROM

IMAGES = sorted((EXPORTED_FROM.parents[1] / "data" / "images").iterdir())
HEAVY = ("torch", "torchvision", "detectron2", "omegaconf", "scipy", "cv2")


def drawn(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """Pictures of one another's crops and scales: of real content, and of any size."""
    photo = Image.open(IMAGES[0]).convert("RGB")
    return [np.array(photo.resize((width, height))) for height, width in sizes]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(EXPORTED_FROM.parents[1]))


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"score_threshold": 0.0},
        {"score_threshold": 0.05, "suppress": 0.5},
        {"score_threshold": 0.0, "max_detections": 3},
    ],
)
def test_it_detects_what_the_detector_does(exported_file: Path, options: dict[str, Any]) -> None:
    images = [*map(str, IMAGES[:2]), *drawn((48, 48), (200, 31), (31, 333), (97, 65), (65, 97), (96, 64))]
    ours = RuntimeDetector(exported_file, **options)(images)
    theirs = Detector.load(EXPORTED_FROM, device="cpu", **options)(images)
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found) == len(expected)
        np.testing.assert_allclose(found.scores, expected.scores.numpy(), atol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.pred_boxes.tensor.numpy(), atol=1e-3)
        assert found.labels.tolist() == expected.pred_classes.tolist()
        assert list(found.names) == list(expected.names)
    assert any(len(found) for found in ours)


def test_openvino_detects_the_same(exported_file: Path) -> None:
    pytest.importorskip("openvino")
    images = [str(IMAGES[0]), *drawn((48, 48), (31, 100))]
    ours = RuntimeDetector(exported_file, score_threshold=0.0, runtime="openvino")(images)
    theirs = RuntimeDetector(exported_file, score_threshold=0.0)(images)
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def test_neither_pytorch_nor_detectron2_are_needed(exported_file: Path) -> None:
    script = f"""
import json, sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # as if it were not installed
from hdetr_d2.runtime import RuntimeDetector
found = RuntimeDetector({str(exported_file)!r}, score_threshold=0.0)({str(IMAGES[0])!r})
print(json.dumps([len(found), sorted(name for name in {HEAVY!r} if sys.modules[name] is not None)]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    count, imported = json.loads(ended.stdout)
    assert count > 0
    assert imported == []


def test_arrays_pil_images_and_paths_are_alike(exported_file: Path) -> None:
    detector = RuntimeDetector(exported_file, score_threshold=0.0)
    photo = Image.open(IMAGES[0]).convert("RGB")
    array = np.array(photo)
    expected = detector(str(IMAGES[0]))
    for image, order in ((photo, "rgb"), (array, "rgb"), (array[..., ::-1], "bgr"), (array / 255.0, "rgb")):
        np.testing.assert_allclose(detector(image, channel_order=order).scores, expected.scores, atol=1e-6)
    with pytest.raises(ImageInputError, match="not a dict"):
        detector({})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            ({name: value}, rf"RuntimeDetector: {name} must be a")
            for name, values in {
                "score_threshold": (-0.1, 1.5, float("nan"), "0.5", [0.1], True),
                "max_detections": (1.5, "3", float("nan"), True),
                "threads": (1.5, "2", True, 10**6),
            }.items()
            for value in values
        ],
        *[({"suppress": value}, r"RuntimeDetector: suppress must be") for value in (0, -1, 2, float("nan"), "x")],
        *[({name: value}, "must be at least 1") for name in ("max_detections", "threads") for value in (0, -1)],
        *[({"runtime": value}, "there is onnxruntime, openvino, torch") for value in ("abacus", "", ["onnxruntime"])],
    ],
)
def test_options_that_cannot_be_are_refused(exported_file: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RuntimeDetector(exported_file, **options)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((9, 9, 3)),
        np.zeros((9, 9), np.uint8),
        np.zeros((3, 9, 9), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        "photo.jpg",
    ],
)
def test_what_is_no_array_of_pixels_is_refused(exported_file: Path, pixels: Any) -> None:
    with pytest.raises(ImageInputError, match="an image must be"):
        RuntimeDetector(exported_file).detect([pixels])


def test_inputs_that_the_graph_does_not_take_are_told(exported_file: Path) -> None:
    detector = RuntimeDetector(exported_file)
    for inputs in (np.zeros((3, 4), np.float32), np.zeros((1, 32, 32), np.float32), np.zeros((3, 32, 32))):
        with pytest.raises(RuntimeModelError, match=r"model\.onnx: cannot be run on images \(1, "):
            detector.raw([inputs])

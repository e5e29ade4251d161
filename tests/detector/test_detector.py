"""A trained model as a function of images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2 import model_zoo as d2_model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.structures import Instances
from PIL import Image

from hdetr_d2 import Detector
from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.detector import DetectorOptionError, ImageInputError, ModelDescription, SourceError
from hdetr_d2.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
IMAGES = FIXTURES / "data" / "images"
MODELS = ("branch", "detr", "dino")


def load(model: str = "dino", **options: Any) -> Detector:
    return Detector.load(FIXTURES / model / "model_0000080.pth", **{"device": "cpu", **options})


@pytest.fixture(scope="module", autouse=True)
def datasets() -> Iterator[None]:
    """The fixtures' configs name their annotation file below this folder; it has the class names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(FIXTURES))
        yield


@pytest.fixture(scope="module")
def detector(datasets: None) -> Detector:
    return load(score_threshold=0.0)


@pytest.mark.parametrize("model", MODELS)
def test_detections_are_those_of_evaluation(model: str) -> None:
    expected = json.loads((FIXTURES / model / "expected.json").read_text())["detections"]
    content = json.loads((FIXTURES / "data" / "annotations.json").read_text())
    detector = load(model, score_threshold=0.0)
    for image in content["images"]:
        instances = detector(IMAGES / image["file_name"])
        assert instances.image_size == (image["height"], image["width"])
        for former in (item for item in expected if item["image_id"] == image["id"]):
            x, y, w, h = former["bbox"]
            near = (instances.pred_boxes.tensor - torch.tensor([x, y, x + w, y + h])).abs().amax(1) < 0.1
            near &= (instances.scores - former["score"]).abs() < 1e-3
            assert near.any(), former


@pytest.mark.parametrize("model", MODELS)
def test_images_of_mixed_sizes_give_what_each_gives_alone(model: str) -> None:
    detector = load(model, score_threshold=0.0)
    whole = Image.open(IMAGES / "000.png")
    images = [whole, whole.crop((0, 0, 40, 48)), whole.resize((30, 90)), IMAGES / "001.png", whole.crop((0, 0, 64, 20))]
    for alone, together in zip([detector(image) for image in images], detector(images), strict=True):
        torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(together.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=1e-2)


def test_every_kind_of_image_gives_the_same(detector: Detector) -> None:
    path = IMAGES / "000.png"
    array = np.array(Image.open(path).convert("RGB"))
    kinds: dict[str, Any] = {
        "path as text": str(path),
        "Pillow": Image.open(path),
        "Pillow with a palette": Image.open(path).convert("RGBA"),
        "array": array,
        "array in [0, 1]": array.astype(np.float32) / 255,
        "tensor": torch.from_numpy(array).permute(2, 0, 1),
        "tensor in [0, 1]": torch.from_numpy(array).permute(2, 0, 1).float() / 255,
    }
    scores = detector(path).scores
    for kind, image in kinds.items():
        assert torch.equal(detector(image).scores, scores), kind
    assert torch.equal(detector(array[..., ::-1], channel_order="bgr").scores, scores)
    assert not torch.equal(detector(array[..., ::-1]).scores, scores)
    assert len(detector(array[..., 0])) == len(scores)


def test_a_stream_gives_results_in_order(detector: Detector) -> None:
    paths = sorted(IMAGES.glob("*.png"))
    streamed = list(detector.stream(iter(paths), batch_size=3))
    assert len(streamed) == len(paths) == 4
    for path, instances in zip(paths, streamed, strict=True):
        torch.testing.assert_close(instances.scores, detector(path).scores, rtol=0, atol=1e-5)


def test_names_follow_the_detections(detector: Detector) -> None:
    instances = detector(IMAGES / "000.png")
    assert isinstance(instances, Instances)
    assert instances.names == [detector.class_names[index] for index in instances.pred_classes]
    some = instances[instances.pred_classes == instances.pred_classes[0]]
    assert set(some.names) == {instances.names[0]}
    assert instances[torch.tensor([2, 0])].names == [instances.names[2], instances.names[0]]
    assert instances[1:3].to("cpu").names == instances.names[1:3]
    assert instances.scores.tolist() == sorted(instances.scores.tolist(), reverse=True)


def test_options_choose_among_the_same_detections(detector: Detector) -> None:
    everything = detector(IMAGES / "000.png")
    threshold = float(everything.scores[4] + everything.scores[5]) / 2
    assert len(load(score_threshold=threshold)(IMAGES / "000.png")) == 5
    assert len(load(score_threshold=0.0, max_detections=3)(IMAGES / "000.png")) == 3
    only = load(score_threshold=0.0, classes=["blue", 0])(IMAGES / "000.png")
    assert set(only.names) == {"blue", "red"}
    assert len(only) == sum(name != "green" for name in everything.names)
    suppressed = load(score_threshold=0.0, suppress=0.1)(IMAGES / "000.png")
    assert 0 < len(suppressed) < len(everything)


def test_fewer_queries_of_a_two_stage_model_are_its_best_proposals() -> None:
    detector = load(score_threshold=0.0, num_queries=3)
    assert len(detector(IMAGES / "000.png")) == 9  # three queries, three classes


def test_more_detections_than_in_training_can_be_asked_for() -> None:
    detector = load("branch", score_threshold=0.0, max_detections=1000)
    assert len(detector(IMAGES / "000.png")) == 36  # twelve queries, three classes


@pytest.mark.parametrize(
    "options",
    [
        {"score_threshold": 1.5},
        {"score_threshold": -0.1},
        {"classes": ["rod"]},
        {"classes": []},
        {"classes": [3]},
        {"classes": [-1]},
        {"suppress": 0.0},
        {"suppress": 1.1},
        *({name: value} for name in ("suppress", "score_threshold", "max_detections") for value in ("x", [1], True)),
        {"score_threshold": float("nan")},
        {"max_detections": 1.5},
        {"max_detections": 0},
        {"precision": "int8"},
        {"device": "tpu9"},
        {"device": "meta"},
        {"num_queries": 0},
        {"num_queries": "x"},
        {"num_queries": 13},
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        load(**options)


def test_a_wrong_class_name_is_told_the_right_one() -> None:
    with pytest.raises(DetectorOptionError, match=r'no class "rod"; did you mean red\?'):
        load(classes=["rod"])


def test_learned_queries_cannot_be_fewer() -> None:
    with pytest.raises(UserError, match="only two-stage models"):
        load("detr", num_queries=3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"must be \(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8"),
        (np.full((4, 4, 3), 200.0), r"is in \[200, 200\]"),
        (np.full((4, 4, 3), np.nan), "must be in"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (torch.zeros(4, 4, 3), r"must be \(3, H, W\)"),
        (5, "not a int"),
        (None, "not a NoneType"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, message: str, detector: Detector) -> None:
    with pytest.raises(ImageInputError, match=message):
        detector(image)


def test_a_checkpoint_that_describes_itself_needs_nothing_beside_it(tmp_path: Path, detector: Detector) -> None:
    source = FIXTURES / "dino" / "model_0000080.pth"
    content = torch.load(source, weights_only=False)
    alone = tmp_path / "alone.pth"
    torch.save({"model": content["model"], "description": detector.description.to_dict()}, alone)
    loaded = Detector.load(alone, score_threshold=0.0, device="cpu")
    assert loaded.description == detector.description
    assert torch.equal(loaded(IMAGES / "000.png").scores, detector(IMAGES / "000.png").scores)


def test_a_description_says_how_images_are_prepared(detector: Detector) -> None:
    description = detector.description
    assert description.channel_order == "rgb"
    assert description.resize == {"rule": "shortest_edge", "short_side": 48, "max_long_side": 80}
    assert len(description.pixel_mean) == len(description.pixel_std) == 3
    assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict())), "file") == description


def test_a_run_is_its_best_weights(tmp_path: Path) -> None:
    for name in ("config.yaml", "model_0000080.pth"):
        shutil.copy(FIXTURES / "detr" / name, tmp_path)
    with pytest.raises(SourceError, match=r"holds no model_best\.pth"):
        Detector.load(tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(FIXTURES / "detr" / "model_0000080.pth"))
    with pytest.raises(CheckpointError, match="no file of its folder"):
        Detector.load(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000080.pth")
    assert len(Detector.load(tmp_path, score_threshold=0.0)(IMAGES / "000.png")) == 12


@pytest.mark.parametrize("content", [None, "<html>", "config missing", "other model"])
def test_a_source_that_cannot_be_loaded_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    if content == "<html>":
        file.write_text(content)
    elif content is not None:
        shutil.copy(FIXTURES / "detr" / "model_0000080.pth", file)
    if content == "other model":
        shutil.copy(FIXTURES / "dino" / "config.yaml", tmp_path)
    with pytest.raises(UserError, match=str(file)):
        Detector.load(file)


def tiny_retinanet() -> Any:
    cfg = d2_model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
    cfg.model.num_classes = 3
    cfg.model.test_score_thresh = 0.0
    cfg.dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=64, max_size=100)]
    return cfg


def test_any_lazyconfig_of_detectron2_can_detect(tmp_path: Path) -> None:
    cfg = tiny_retinanet()
    torch.manual_seed(0)
    weights = tmp_path / "retinanet.pth"
    model = instantiate(cfg.model)
    torch.save({"model": model.state_dict()}, weights)
    detector = Detector.from_lazyconfig(cfg, weights, score_threshold=0.0, device="cpu")
    path = IMAGES / "000.png"
    found = detector(path)
    # by hand, as Detectron2's own predictor would
    image = np.array(Image.open(path).convert("RGB"))[..., ::-1]
    resized = T.ResizeShortestEdge(64, 100).get_transform(image).apply_image(np.ascontiguousarray(image))
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    with torch.no_grad():
        expected = model.eval()([{"image": tensor, "height": 48, "width": 64}])[0]["instances"]
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores.sort(descending=True).values)
    assert set(found.names) <= {"class 0", "class 1", "class 2"}


def test_a_lazyconfig_without_a_mapper_is_refused() -> None:
    cfg = tiny_retinanet()
    del cfg.dataloader
    with pytest.raises(UserError, match=r"dataloader\.test\.mapper"):
        Detector.from_lazyconfig(cfg)

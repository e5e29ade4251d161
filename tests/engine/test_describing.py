"""What runs say about their models: one file is enough on another machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from hdetr_d2 import Detector, __version__
from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.description import KEY, DescriptionError, ModelDescription, read_description
from hdetr_d2.detector import SourceError, write_twin
from hdetr_d2.engine import ConfigError
from tests.engine.toy import run_in_process

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
CONFIG = str(FIXTURES / "branch" / "config.yaml")
CLASSES = json.loads((FIXTURES / "data" / "annotations.json").read_text())["categories"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a real model, trained on data that is deleted afterwards; its own folder is deleted by the test."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(FIXTURES / "data", data, dirs_exist_ok=True)
    folder = tmp_path_factory.mktemp("run")
    files = [f"dataset.{part}.json={data / 'annotations.json'}" for part in ("train", "val")]
    files += [f"dataset.{part}.images={data / 'images'}" for part in ("train", "val")]
    options = ["schedule.epochs=2", "train.checkpoint.period_epochs=1", "train.eval_period_epochs=1"]
    run_in_process(*files, *options, f"train.output_dir={folder}", config=CONFIG)
    shutil.rmtree(data)
    return folder


NAMES = ("model_final.pth", "model_best.pth", "last")


def file_of(run: Path, name: str) -> Path:
    return run / (run / "last_checkpoint").read_text() if name == "last" else run / name


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_alone_in_a_folder_is_a_detector(elsewhere: Path, name: str, tmp_path: Path) -> None:
    shutil.copy(file_of(elsewhere, name), tmp_path / "copied.pth")
    detector = Detector.load(tmp_path / "copied.pth", device="cpu", score_threshold=0.0)
    assert detector.class_names == tuple(each["name"] for each in CLASSES)
    assert detector.description.category_ids == tuple(each["id"] for each in CLASSES)
    beside = Detector.load(file_of(elsewhere, name), device="cpu", score_threshold=0.0)
    image = FIXTURES / "data" / "images" / "000.png"
    alone, there = detector(image), beside(image)
    assert torch.equal(alone.pred_boxes.tensor, there.pred_boxes.tensor)
    assert torch.equal(alone.scores, there.scores)


def test_the_twin_of_a_file_detects_what_it_does_and_so_does_the_twin_of_the_twin(
    elsewhere: Path, tmp_path: Path
) -> None:
    original = tmp_path / "original.pth"
    shutil.copy(elsewhere / "model_final.pth", original)
    twin = write_twin(original)
    assert {path.name for path in tmp_path.iterdir()} == {"original.pth", "original.safetensors", "original.json"}
    original.rename(tmp_path / "elsewhere.pth")
    again = write_twin(twin, tmp_path / "again.pth")
    image = FIXTURES / "data" / "images" / "000.png"
    detectors = [Detector.load(path, device="cpu") for path in (tmp_path / "elsewhere.pth", twin, again)]
    assert detectors[0].description == detectors[1].description == detectors[2].description
    first, *others = [detector(image) for detector in detectors]
    assert len(others)
    assert all(torch.equal(first.scores, other.scores) for other in others)


def test_a_safetensors_without_its_json_is_refused(elsewhere: Path, tmp_path: Path) -> None:
    shutil.copy(elsewhere / "model_final.pth", tmp_path)
    twin = write_twin(tmp_path / "model_final.pth")
    twin.with_suffix(".json").unlink()
    with pytest.raises(SourceError, match="does not describe itself"):
        Detector.load(twin)
    twin.with_suffix(".json").write_text("{")
    with pytest.raises(DescriptionError, match=r"model_final\.json"):
        Detector.load(twin)


def test_a_run_says_what_its_model_takes_and_gives(elsewhere: Path) -> None:
    description = read_description(elsewhere / "description.json")
    assert description == ModelDescription.from_dict(load_checkpoint(elsewhere / "model_final.pth")[KEY], "")
    assert description.resize == {"rule": "shortest_edge", "short_side": 48, "max_long_side": 80}
    assert (description.channel_order, description.input_range) == ("rgb", (0.0, 255.0))
    assert description.pixel_mean == (123.675, 116.28, 103.53)
    assert description.pixel_std == (58.395, 57.12, 57.375)
    assert (description.num_detections, description.version) == (100, __version__)


def test_a_model_of_ones_own_code_is_loaded_with_the_config_beside_it_and_refused_without(
    data: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_in_process(*data, f"train.output_dir={run}", "schedule.epochs=1")
    assert Detector.load(run / "model_final.pth", device="cpu").class_names == ("red", "green", "blue")
    shutil.copy(run / "model_final.pth", tmp_path)
    with pytest.raises(SourceError, match=r"tests\.engine\.toy\.ToyDetector at model\._target_"):
        Detector.load(tmp_path / "model_final.pth")


@pytest.mark.parametrize(
    "config",
    [
        "model: {_target_: os.system, command: 'touch {}'}",
        "model: !!python/object/apply:os.system ['touch {}']",
        "model: {_target_: hdetr_d2.data.loader.logging.os.system, command: 'touch {}'}",
        "model: {_target_: hdetr_d2.modeling.DETR, x: '${other}'}\nother: {_target_: os.system, command: 'touch {}'}",
        "import_paths: [/]\nmodel: {_target_: /dev/null.py:x}",
        "no mapping",
    ],
)
def test_the_config_in_a_file_runs_no_code(elsewhere: Path, config: str, tmp_path: Path) -> None:
    content = load_checkpoint(elsewhere / "model_final.pth")
    trace = tmp_path / "trace"
    content[KEY]["config"] = config.replace("{}", str(trace))
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(SourceError, match=r"model\.pth"):
        Detector.load(tmp_path / "model.pth")
    assert not trace.exists()


def test_a_config_that_cannot_be_saved_is_refused_before_training(data: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("from tests.engine.toy_config import *\ndataloader.test.mapper.augmentations = [lambda x: x]\n")
    with pytest.raises(ConfigError):
        run_in_process(*data, f"train.output_dir={tmp_path / 'run'}", config=str(config))

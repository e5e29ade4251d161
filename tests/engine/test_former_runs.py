"""Runs made at commit f091f20 train on and evaluate as they did there.

Each folder of ``tests/fixtures/f091f20`` has the config that a run saved, its checkpoint at iteration 80, and what that
commit made of both: the losses of the next steps, and the detections of the checkpoint's model.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.toy import run_in_process

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
MODELS = ("branch", "detr", "dino")
DATA = FIXTURES / "data"


def overrides(folder: Path) -> list[str]:
    json_file, images = DATA / "annotations.json", DATA / "images"
    files = [f"dataset.{part}.json={json_file}" for part in ("train", "val")]
    folders = [f"dataset.{part}.images={images}" for part in ("train", "val")]
    return [*files, *folders, f"train.output_dir={folder}"]


def expected(model: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FIXTURES / model / "expected.json").read_text())
    return content


@pytest.mark.parametrize("model", MODELS)
def test_a_former_run_trains_on_with_the_losses_that_it_had(model: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / model / "model_0000080.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000080.pth")
    config = str(FIXTURES / model / "config.yaml")
    run_in_process("--resume", *overrides(tmp_path), config=config)
    steps = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    # Rounding grows with every step: the third is compared more loosely than the first.
    for step, former, tolerance in zip(steps[:3], expected(model)["steps"], (1e-4, 1e-3, 1e-2), strict=True):
        assert {key: step[key] for key in former} == pytest.approx(former, rel=tolerance)


@pytest.mark.parametrize("model", MODELS)
def test_a_former_checkpoint_detects_what_it_did(model: str, tmp_path: Path) -> None:
    weights = FIXTURES / model / "model_0000080.pth"
    config = str(FIXTURES / model / "config.yaml")
    run_in_process("--eval-only", *overrides(tmp_path), f"train.init_checkpoint={weights}", config=config)
    detections = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    for former in expected(model)["detections"]:
        assert any(same(detection, former) for detection in detections), former


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two detections differ by rounding only: a thousandth of score, a tenth of a pixel."""
    if (one["image_id"], one["category_id"]) != (other["image_id"], other["category_id"]):
        return False
    return abs(one["score"] - other["score"]) < 1e-3 and np.allclose(one["bbox"], other["bbox"], atol=0.1)

"""Training on a long tail in LVIS's format, in one process, in two, and resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine.records import read_evaluations
from tests.engine.test_distributed import TORCHRUN, run_program
from tests.engine.toy import run_in_process, run_until_killed

CONFIG = str(Path(__file__).with_name("lvis_config.py"))
STEPS = 9


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDETR_D2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run_in_process(f"train.output_dir={folder}", config=CONFIG)
    return folder


def steps(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{key: record[key] for key in record if "loss" in key or key == "gradient_norm"} for record in records]


def object_counts(folder: Path) -> Tensor:
    """What the seesaw loss of the last checkpoint has counted."""
    state = load_checkpoint(folder / f"model_{STEPS:07d}.pth")["model"]
    (counts,) = (value for key, value in state.items() if key.startswith("criterion."))
    return counts


def positives(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "positives.json").read_text())


def check_a_whole_run(folder: Path) -> None:
    records = steps(folder)
    assert len(records) == STEPS
    assert all(math.isfinite(value) for record in records for value in record.values())
    (evaluation,) = read_evaluations(str(folder / "evaluations.json"))
    assert evaluation["results"]["bbox"].keys() >= {"AP", "APr", "APc", "APf"}
    report = (folder / "longtail.html").read_text()
    assert f"{folder.name}, one-to-many" in report
    assert "data:image/jpeg" in report


def test_one_process_trains_on_a_long_tail(one_process: Path) -> None:
    check_a_whole_run(one_process)
    assert object_counts(one_process).sum() > STEPS


def test_positives_follow_from_the_objects_that_were_seen(one_process: Path) -> None:
    objects, found = object_counts(one_process), positives(one_process)
    layers, copies = 2, 3
    assert found["iteration"] == STEPS
    assert found["one_to_one"] == (layers * objects).tolist()
    assert found["one_to_many"] == (layers * copies * objects).tolist()


def test_two_processes_train_on_a_long_tail_and_count_the_objects_of_one(one_process: Path, tmp_path: Path) -> None:
    done = run_program(TORCHRUN, f"train.output_dir={tmp_path}", config=CONFIG)
    assert done.returncode == 0, done.stderr
    check_a_whole_run(tmp_path)
    assert torch.equal(object_counts(tmp_path), object_counts(one_process))
    assert positives(tmp_path) == positives(one_process)


def test_a_killed_and_resumed_run_draws_the_classes_that_it_would_have_drawn(one_process: Path, tmp_path: Path) -> None:
    options = [f"train.output_dir={tmp_path}", "train.checkpoint.period_epochs=0.5"]
    run_until_killed(*options, at=5, config=CONFIG)
    run_in_process("--resume", *options, config=CONFIG)
    assert steps(tmp_path) == steps(one_process)
    assert torch.equal(object_counts(tmp_path), object_counts(one_process))
    assert positives(tmp_path) == positives(one_process)

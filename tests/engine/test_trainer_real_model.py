"""The trainer's promises with H-Deformable-DETR in place of the toy."""

import json
from pathlib import Path

import pytest

from tests.engine.test_distributed import TORCHRUN, run_program
from tests.engine.toy import run_in_process, run_until_killed

CONFIG = str(Path(__file__).with_name("real_config.py"))


def steps(folder: Path) -> list[dict[str, float]]:
    """Every loss and the gradient norm of every step."""
    records = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{key: record[key] for key in record if "loss" in key or key == "gradient_norm"} for record in records]


@pytest.fixture(scope="module")
def whole_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_in_process(*data, f"train.output_dir={folder}", config=CONFIG)
    return folder


def test_a_killed_and_resumed_run_has_the_losses_of_one_not_killed(data: list[str], tmp_path: Path) -> None:
    dropout = [*data, "model.transformer.encoder.layer.dropout=0.1", "dataloader.train.num_workers=1"]
    run_in_process(*dropout, f"train.output_dir={tmp_path / 'whole'}", config=CONFIG)
    killed = [*dropout, f"train.output_dir={tmp_path / 'killed'}"]
    run_until_killed(*killed, at=4, config=CONFIG)
    run_in_process("--resume", *killed, config=CONFIG)
    assert len(steps(tmp_path / "whole")) == 6
    assert steps(tmp_path / "killed") == steps(tmp_path / "whole")


def test_accumulated_micro_batches_equal_the_full_batch(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path}", "train.accumulate=2", config=CONFIG)
    # later steps drift apart where a tie of two costs falls the other way
    for whole, accumulated in zip(steps(whole_run)[:3], steps(tmp_path)[:3], strict=True):
        assert accumulated == pytest.approx(whole, rel=1e-3)


def test_bf16_training_stays_near_fp32(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, f"train.output_dir={tmp_path}", "train.precision=bf16", config=CONFIG)
    for exact, reduced in zip(steps(whole_run), steps(tmp_path), strict=True):
        assert reduced["total_loss"] == pytest.approx(exact["total_loss"], rel=0.15)


def test_two_gloo_processes_under_torchrun_equal_one(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    done = run_program(TORCHRUN, *data, f"train.output_dir={tmp_path}", config=CONFIG)
    assert done.returncode == 0, done.stderr
    for one, two in zip(steps(whole_run)[:3], steps(tmp_path)[:3], strict=True):
        assert two == pytest.approx(one, rel=1e-3)

"""Trainings that have stopped getting better end early, as if that had been planned."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine import ConfigError
from hdetr_d2.engine.early_stopping import has_stopped_improving
from hdetr_d2.engine.hooks import read_evaluations
from tests.engine.test_distributed import run_program
from tests.engine.toy import losses, run_in_process, run_until_killed


def records(*values: float | None, period: int = 10) -> list[dict[str, Any]]:
    return [
        {"iteration": period * (index + 1), "results": {"bbox": {} if value is None else {"AP": value}}}
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "min_delta", "stopped"),
    [
        ((1, 2, 3, 3), 0.0, False),  # ten steps of patience are not over
        ((1, 3, 2, 3), 0.0, True),  # an equal value is no improvement
        ((1, 3, 3.5, 3.9), 1.0, True),
        ((1, 3, 3.5, 4.1), 1.0, False),
        ((0, 0, 0, 0), 0.0, False),  # nothing is found yet
        ((None, None, None, None), 0.0, False),
        ((0, 0, 0, 1), 0.0, False),
        ((5, float("nan"), float("nan")), 0.0, True),
    ],
)
def test_patience_is_measured_from_the_last_improvement(
    values: tuple[float | None, ...], min_delta: float, stopped: bool
) -> None:
    assert has_stopped_improving(records(*values), metric="bbox/AP", patience=20, min_delta=min_delta) is stopped


# of the toy's evaluations, every 3 steps, none rises by so much: it ends at the second one after the first
STOPPING = ["train.early_stopping={patience_epochs: 2, min_delta: 100}", "train.checkpoint.max_to_keep=9"]
LONG = ["schedule.epochs=8", "schedule.drop_epochs=[2]", "train.ema={decay: 0.9}", "train.best_metric=ema/bbox/AP"]


@pytest.fixture(scope="module")
def stopped_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    run_in_process(*data, *LONG, *STOPPING, f"train.output_dir={folder}")
    return folder


def iterations(folder: Path) -> list[int]:
    return [record["iteration"] for record in read_evaluations(str(folder / "evaluations.json"))]


def test_a_run_that_ends_early_leaves_what_every_run_leaves(stopped_run: Path) -> None:
    assert iterations(stopped_run) == [3, 6, 9]
    assert (stopped_run / "last_checkpoint").read_text() == "model_0000009.pth"
    last, final = (load_checkpoint(stopped_run / name) for name in ("model_0000009.pth", "model_final.pth"))
    assert final["iteration"] == last["iteration"] + 1 == 9
    assert all((last["ema"]["average"][name] == value).all() for name, value in final["model"].items())
    assert max(losses(stopped_run)) == 8


def test_the_end_comes_even_between_two_checkpoints(data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, *LONG, *STOPPING, "train.checkpoint.period_epochs=2", f"train.output_dir={tmp_path}")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"


def test_a_run_that_ended_early_trains_no_further_unless_it_may(
    stopped_run: Path, data: list[str], tmp_path: Path
) -> None:
    shutil.copytree(stopped_run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model_final.pth").unlink()  # a kill may come before it is written
    run_in_process("--resume", *data, *LONG, *STOPPING, f"train.output_dir={tmp_path}")
    assert iterations(tmp_path) == [3, 6, 9]
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 9
    run_in_process("--resume", *data, *LONG, "train.early_stopping=null", f"train.output_dir={tmp_path}")
    assert iterations(tmp_path)[-1] == 24


@pytest.mark.parametrize("at", [5, 8])
def test_a_killed_run_ends_where_the_other_did(stopped_run: Path, data: list[str], tmp_path: Path, at: int) -> None:
    options = [*data, *LONG, *STOPPING, f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=at)
    run_in_process("--resume", *options)
    assert iterations(tmp_path) == iterations(stopped_run)
    assert losses(tmp_path) == losses(stopped_run)


def test_several_processes_end_together(data: list[str], tmp_path: Path) -> None:
    options = [*data, *LONG, *STOPPING, f"train.output_dir={tmp_path}"]
    done = run_program([sys.executable], "--num-gpus", "2", *options)
    assert done.returncode == 0, done.stderr
    assert iterations(tmp_path) == [3, 6, 9]
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 9


def test_stopping_early_needs_evaluations(data: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="eval_period_epochs"):
        run_in_process(*data, *STOPPING, "train.eval_period_epochs=0", f"train.output_dir={tmp_path}")

"""A training that a signal stops after a whole step, and the resumed one, against one that nothing stops."""

import signal
from pathlib import Path

import pytest
import torch

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine.records import read_evaluations
from hdetr_d2.engine.stopping import STOPPED_EXIT_CODE
from tests.engine.toy import metrics, run_in_process, run_signalled

STRAIGHT = ["train.log_period=2", "train.checkpoint.max_to_keep=9"]


@pytest.fixture(scope="module")
def whole_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 steps, checkpoints and evaluations every 3, lines every 2: a line may be of steps before and after a stop."""
    folder = tmp_path_factory.mktemp("whole")
    run_in_process(*data, *STRAIGHT, f"train.output_dir={folder}")
    return folder


def assert_equal_runs(folder: Path, whole: Path) -> None:
    assert metrics(folder) == metrics(whole)
    assert read_evaluations(str(folder / "evaluations.json")) == read_evaluations(str(whole / "evaluations.json"))
    weights = load_checkpoint(whole / "model_0000009.pth")["model"]
    for name, tensor in load_checkpoint(folder / "model_0000009.pth")["model"].items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 4), (signal.SIGINT, 0), (signal.SIGUSR1, 3)])
def test_a_signal_finishes_the_step_saves_and_exits_resumable(
    whole_run: Path, data: list[str], tmp_path: Path, number: int, at: int
) -> None:
    options = [*data, *STRAIGHT, f"train.output_dir={tmp_path}"]
    assert run_signalled(*options, at=at, number=number) == STOPPED_EXIT_CODE
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{at + 1:07d}.pth"
    assert not (tmp_path / "run.lock").exists()
    run_in_process("--resume", *options)
    assert_equal_runs(tmp_path, whole_run)


@pytest.mark.parametrize("at", [3, 9])
def test_a_signal_during_an_evaluation_leaves_it_to_the_resumed_run(
    whole_run: Path, data: list[str], tmp_path: Path, at: int
) -> None:
    options = [*data, *STRAIGHT, "train.checkpoint.period_epochs=2", f"train.output_dir={tmp_path}"]
    assert run_signalled(*options, at=at, number=signal.SIGTERM, method="evaluation") == STOPPED_EXIT_CODE
    assert [record["iteration"] for record in read_evaluations(str(tmp_path / "evaluations.json"))] == list(
        range(3, at, 3)
    )
    run_in_process("--resume", *options)
    assert_equal_runs(tmp_path, whole_run)


@pytest.mark.parametrize(
    ("method", "at"),
    [
        ("step", 5),
        ("evaluation", 6),
        # between a checkpoint and the line of its step; between an evaluation's record and its line
        ("hdetr_d2.engine.hooks:write_records", 1),
        ("hdetr_d2.engine.hooks:MetricsWriter.write", 2),
        ("hdetr_d2.engine.hooks:MetricsWriter.write", 4),
    ],
)
def test_no_line_is_lost_or_shortened_by_a_kill(
    whole_run: Path, data: list[str], tmp_path: Path, method: str, at: int
) -> None:
    options = [*data, *STRAIGHT, f"train.output_dir={tmp_path}"]
    assert run_signalled(*options, at=at, number=signal.SIGKILL, method=method) == -signal.SIGKILL
    with (tmp_path / "metrics.json").open("a") as file:
        file.write('{"iteration": 1, "loss_b')  # a line that a kill cut short
    run_in_process("--resume", *options)
    assert_equal_runs(tmp_path, whole_run)


def test_the_average_and_its_restart_go_on_after_a_stop(data: list[str], tmp_path: Path) -> None:
    options = [*data, "train.ema={tau: 0, decay: 0.9, restart: {epoch: 2, decay: 0.5}}", "train.log_period=2"]
    run_in_process(*options, f"train.output_dir={tmp_path / 'whole'}")
    for number, (at, method) in enumerate([(6, "evaluation"), (5, "step")]):
        folder = tmp_path / str(number)
        stopped = [*options, f"train.output_dir={folder}"]
        assert run_signalled(*stopped, at=at, number=signal.SIGTERM, method=method) == STOPPED_EXIT_CODE
        run_in_process("--resume", *stopped)
        assert_equal_runs(folder, tmp_path / "whole")

"""Moving average, schedule, batch transforms, mosaics and synchronised norms together, as DEIM trains."""

import sys
from pathlib import Path

import pytest
import torch

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine.records import read_evaluations
from tests.engine.test_distributed import run_program
from tests.engine.toy import losses, run_in_process, run_until_killed

CONFIG = str(Path(__file__).with_name("dense_config.py"))


@pytest.fixture(scope="module")
def whole_run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    run_in_process(*data, "model.dropout=0", f"train.output_dir={folder}", config=CONFIG)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of model and average, after the last step."""
    state = load_checkpoint(folder / "model_0000009.pth")
    averaged = {f"ema.{name}": tensor for name, tensor in state["ema"]["average"].items()}
    return {**state["model"], **averaged}


@pytest.mark.parametrize("killed_at", [4, 7])
def test_a_killed_and_resumed_run_is_one_not_killed(
    whole_run: Path, data: list[str], tmp_path: Path, killed_at: int
) -> None:
    options = [*data, "model.dropout=0", f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=killed_at, config=CONFIG)
    run_in_process("--resume", *options, config=CONFIG)
    assert losses(tmp_path) == losses(whole_run)
    expected = weights(whole_run)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())


def test_two_gloo_processes_equal_one(whole_run: Path, data: list[str], tmp_path: Path) -> None:
    options = [*data, "model.dropout=0", f"train.output_dir={tmp_path}"]
    done = run_program([sys.executable], "--num-gpus", "2", *options, config=CONFIG)
    assert done.returncode == 0, done.stderr
    one, two = losses(whole_run), losses(tmp_path)
    assert sorted(one) == sorted(two) == list(range(9))
    for iteration, expected in one.items():
        assert two[iteration] == pytest.approx(expected, rel=1e-3)
    expected = weights(whole_run)
    for name, tensor in weights(tmp_path).items():
        if name.endswith("num_batches_tracked"):  # Detectron2's SyncBatchNorm does not count
            continue
        # and it keeps the variance without Bessel's correction, PyTorch's BatchNorm with it
        tolerance = 0.02 if name.endswith("running_var") else 1e-3
        assert (tensor - expected[name]).abs().max() < tolerance, name
    for left, right in zip(
        read_evaluations(str(whole_run / "evaluations.json")),
        read_evaluations(str(tmp_path / "evaluations.json")),
        strict=True,
    ):
        assert left["results"]["ema"]["bbox"] == pytest.approx(right["results"]["ema"]["bbox"], abs=1e-3)

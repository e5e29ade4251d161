"""Several processes, on the CPU with gloo, through the program as a user starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine.records import read_evaluations
from tests.engine.toy import CONFIG, ROOT, losses, run_in_process


def run_program(launcher: list[str], *options: str, config: str = CONFIG) -> subprocess.CompletedProcess:
    command = [*launcher, str(ROOT / "train_net.py"), "--config-file", config, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


PYTHON = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_gloo_processes_equal_one(data: list[str], tmp_path: Path) -> None:
    # "dropout=0": the processes draw different numbers; every third image is empty, so ranks differ in targets
    shared = [*data, "model.dropout=0", "schedule.epochs=2", "schedule.drop_epochs=[1]"]
    run_in_process(*shared, f"train.output_dir={tmp_path / 'one'}")
    two = ["--num-gpus", "2", "train.accumulate=2", f"train.output_dir={tmp_path / 'two'}"]
    done = run_program(PYTHON, *two, *shared)
    assert done.returncode == 0, done.stderr

    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert sorted(one) == sorted(two)
    for iteration, expected in one.items():
        assert two[iteration] == pytest.approx(expected, rel=1e-4)
    weights = load_checkpoint(tmp_path / "one" / "model_0000006.pth")["model"]
    for name, tensor in load_checkpoint(tmp_path / "two" / "model_0000006.pth")["model"].items():
        assert (tensor - weights[name]).abs().max() < 1e-4, name
    for left, right in zip(
        read_evaluations(str(tmp_path / "one" / "evaluations.json")),
        read_evaluations(str(tmp_path / "two" / "evaluations.json")),
        strict=True,
    ):
        assert left["results"]["bbox"] == pytest.approx(right["results"]["bbox"], abs=1e-4)
    states = load_checkpoint(tmp_path / "two" / "model_0000006.pth")["random_states"]
    assert len(states) == 2
    assert not states[0]["torch"].equal(states[1]["torch"])


def test_a_loss_that_is_not_finite_on_one_process_stops_both(data: list[str], tmp_path: Path) -> None:
    options = [*data, "model.nan_at_image=004.png", f"train.output_dir={tmp_path}"]
    done = run_program(PYTHON, "--num-gpus", "2", *options)
    assert done.returncode != 0
    (saved,) = tmp_path.glob("nonfinite_*.pth")
    processes = load_checkpoint(saved)["processes"]
    assert [process["rank"] for process in processes] == [0, 1]
    bad = [process for process in processes if process["losses"]["loss_class"] != process["losses"]["loss_class"]]
    assert len(bad) == 1
    assert re.search(rf"process {bad[0]['rank']}: losses not finite: loss_class; images: .*004\.png", done.stderr)

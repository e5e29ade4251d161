"""Jobs of several processes as a user starts them: one error for all, signals passed on, no orphans."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.cli.train import train
from hdetr_d2.engine import ConfigError
from hdetr_d2.engine.cli import run
from hdetr_d2.engine.launch import SHARE_VARIABLE, Job, _choose_gpu, launch
from hdetr_d2.engine.stopping import STOPPED_EXIT_CODE
from hdetr_d2.processes import is_running
from tests.engine.test_distributed import PYTHON, TORCHRUN, run_program
from tests.engine.toy import CONFIG, ROOT, losses, run_in_process

LONG = ["schedule.epochs=100000", "schedule.drop_epochs=[]", "train.eval_period_epochs=0", "train.log_period=5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_processes": -1}, "--num-gpus"),
        ({"num_machines": 0}, "--num-machines"),
        ({"num_machines": 2, "machine_rank": 2, "dist_url": "tcp://127.0.0.1:1"}, "--machine-rank 2"),
        ({"machine_rank": 1}, "--machine-rank 1"),
        ({"machine_rank": -1}, "--machine-rank -1"),
        ({"num_machines": 2}, "--dist-url"),
        ({"num_machines": 2, "dist_url": "127.0.0.1:1"}, "--dist-url"),
    ],
)
def test_a_job_that_cannot_be_is_refused_with_the_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Job(**options)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 of WORLD_SIZE=0"),
        ({"RANK": "x"}, "RANK is 'x'"),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK=1 of LOCAL_WORLD_SIZE=1"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0"),
        ({"LOCAL_WORLD_SIZE": "4"}, "LOCAL_WORLD_SIZE=4 and WORLD_SIZE=2"),
    ],
)
def test_an_environment_that_no_launcher_would_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    sound = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (sound | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hdetr_d2.engine.launch.die_with_parent", lambda parent: None)
    with pytest.raises(ConfigError, match=message):
        launch(lambda: pytest.fail("the job was started"), Job())


@pytest.mark.parametrize(
    ("device", "gpus", "refused"),
    [("auto", True, True), ("cuda", True, True), ("cpu", True, False), ("auto", False, False)],
)
def test_no_gpu_is_one_process_on_the_cpu_and_refused_where_gpus_would_be_used(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: bool, refused: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus)
    with pytest.raises(ConfigError, match=r"--num-gpus 0 .*train\.device=") if refused else contextlib.nullcontext():
        assert Job(num_processes=0, device=device).world_size == 1


@pytest.mark.parametrize("program", ["train_net.py", "hdetr-d2 train"])
def test_no_gpu_is_the_cpu_for_either_program_where_there_are_gpus(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    started: list[tuple[Job, list[str]]] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("hdetr_d2.engine.cli.launch", lambda main, job, args: started.append((job, list(args[0].opts))))
    if program == "train_net.py":
        run(["--config-file", CONFIG, "--num-gpus", "0", "train.device=auto"])
    else:
        train(CONFIG, ["train.device=auto"], num_gpus=0)
    ((job, overrides),) = started
    assert (job.world_size, job.device, overrides[-1]) == (1, "cpu", "train.device=cpu")


@pytest.mark.parametrize("launcher", [[*PYTHON], TORCHRUN], ids=["num-gpus", "torchrun"])
def test_a_mistake_that_only_one_of_two_processes_meets_is_told_once(
    data: list[str], tmp_path: Path, launcher: list[str]
) -> None:
    options = [*data, "train.batch_size=3", f"train.output_dir={tmp_path}"]
    if launcher == PYTHON:
        options += ["--num-gpus", "2"]
    done = run_program(launcher, *options)
    lines = [line for line in done.stderr.splitlines() if "train_net.py: error:" in line]
    assert len(lines) == 1
    assert "cannot be divided among 2 process(es)" in lines[0]
    if launcher == PYTHON:
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@contextlib.contextmanager
def started(*options: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program in the background, in a session of its own so that nothing of it outlives the test."""
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", CONFIG, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        options_of_start: dict[str, Any] = {"cwd": ROOT, "env": environment, "start_new_session": True}
        # a shell's background job, as this one may be, ignores Ctrl-C
        options_of_start["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        program = subprocess.Popen(command, stdout=file, stderr=file, **options_of_start)
        try:
            yield program
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def wait_until(condition: Callable[[], bool], *, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_processes_stop_in_the_same_step_and_end_with_their_parent(data: list[str], tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    options = [*data, *LONG, "model.dropout=0", f"train.output_dir={run}", "dataloader.train.num_workers=1"]
    options.append("train.checkpoint.period_epochs=0")

    def steps() -> int:
        return max(losses(run), default=0) if (run / "metrics.json").is_file() else 0

    with started("--num-gpus", "2", *options, log=log) as program:
        wait_until(lambda: steps() > 10 or program.poll() is not None)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the parent, both processes and their loaders
        assert program.wait(120) == STOPPED_EXIT_CODE, log.read_text()
    done = int((run / "last_checkpoint").read_text()[6:13])
    assert len(load_checkpoint(run / f"model_{done:07d}.pth")["random_states"]) == 2
    assert log.read_text().count("SIGTERM: saving after this step") == 1
    assert "Traceback" not in log.read_text()

    with started("--num-gpus", "2", "--resume", *options, log=log) as program:
        wait_until(lambda: steps() > done + 10 or program.poll() is not None)
        assert program.poll() is None, log.read_text()
        holder = json.loads((run / "run.lock").read_text())["pid"]
        program.kill()
        wait_until(lambda: not is_running(holder), seconds=60)
        before = steps()
        time.sleep(0.5)
        assert steps() == before
    run_in_process("--resume", *options, "train.accumulate=2", f"schedule.epochs={done // 3 + 1}")
    assert max(losses(run)) == 3 * (done // 3 + 1) - 1


def test_a_killed_process_ends_the_job_in_one_line(data: list[str], tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    with started("--num-gpus", "2", *data, *LONG, f"train.output_dir={run}", log=log) as program:
        wait_until((run / "metrics.json").is_file)
        os.kill(json.loads((run / "run.lock").read_text())["pid"], signal.SIGKILL)
        assert program.wait(60) == 2
    errors = [line for line in log.read_text().splitlines() if line.startswith("train_net.py: error:")]
    assert len(errors) == 1
    assert "SIGKILL" in errors[0]
    assert "--resume" in errors[0]
    assert "Traceback" not in log.read_text()


def test_torchrun_restarts_go_on_by_themselves(data: list[str], tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    options = [*data, "model.dropout=0", "schedule.epochs=2", "schedule.drop_epochs=[]", f"train.output_dir={run}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DIE_ONCE_AT": f"4 {tmp_path}/died"}
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program += ["--max-restarts", "1", "-m", "tests.engine.dying", "--config-file", CONFIG, *options]
    with log.open("wb") as file:
        done = subprocess.run(program, cwd=ROOT, env=environment, stdout=file, stderr=file)
    assert (tmp_path / "died").exists()
    assert done.returncode == 0, log.read_text()
    assert "was started again (" in log.read_text()
    run_in_process(*options[:-1], f"train.output_dir={tmp_path / 'one'}", "train.accumulate=2")
    for iteration, expected in losses(tmp_path / "one").items():
        assert losses(run)[iteration] == pytest.approx(expected, rel=1e-4)


def test_processes_share_gpus_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert _choose_gpu(1, 2) == "nccl"
    with pytest.raises(ConfigError, match=f"4 processes on a machine with 2 GPU.*{SHARE_VARIABLE}=1"):
        _choose_gpu(3, 4)
    monkeypatch.setenv(SHARE_VARIABLE, "1")
    assert _choose_gpu(1, 2) == "nccl"
    assert _choose_gpu(3, 4) == "gloo"
    assert chosen == [1, 1, 1]

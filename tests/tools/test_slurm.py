"""tools/slurm.sh, with programs in place of Slurm's that do what Slurm's do on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# srun passes signals on to its task
SRUN = """#!/bin/bash
shift
"$@" &
task=$!
trap 'kill -USR1 $task' USR1
wait $task
code=$?
while [ $code -gt 128 ]; do wait $task; code=$?; done
exit $code
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo first; echo second; else echo "$@" >> "$RECORD/requeued"; fi
"""
# the training: 75 after USR1, else 0
TRAINING = """#!/bin/bash
printf '%s\\n' "$@" > "$RECORD/arguments"
trap 'exit 75' USR1
touch "$RECORD/started"
for _ in $(seq 600); do [ -e "$RECORD/finish" ] && exit 0; sleep 0.05; done
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL), ("training", TRAINING)):
        file = tmp_path / "bin" / name
        file.write_text(content)
        file.chmod(0o755)
    slurm = {"JOB_NODELIST": "node[1-2]", "JOB_ID": "30007", "NNODES": "2", "NODEID": "1", "GPUS_ON_NODE": "4"}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    named = {f"SLURM_{key}": value for key, value in slurm.items()}
    return {**os.environ, **named, "PATH": path, "PROGRAM": "training", "RECORD": str(tmp_path)}


def start(environment: dict[str, str], *options: str) -> subprocess.Popen[bytes]:
    job = subprocess.Popen(["bash", str(ROOT / "tools/slurm.sh"), "some_config", *options], env=environment)
    end = time.monotonic() + 60
    while not (Path(environment["RECORD"]) / "started").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_before_its_time_is_up_a_job_saves_and_queues_itself_again(environment: dict[str, str], tmp_path: Path) -> None:
    job = start(environment, "dataset.names=[a b, c]")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == 75
    assert (tmp_path / "requeued").read_text() == "requeue 30007\n"
    assert (tmp_path / "arguments").read_text().splitlines() == [
        "--config-file", "some_config", "--resume", "--num-gpus", "4", "--num-machines", "2", "--machine-rank", "1",
        "--dist-url", "tcp://first:30007", "dataset.names=[a b, c]",
    ]  # fmt: skip


def test_a_job_that_is_done_ends(environment: dict[str, str], tmp_path: Path) -> None:
    job = start(environment)
    (tmp_path / "finish").touch()
    assert job.wait(60) == 0
    assert not (tmp_path / "requeued").exists()

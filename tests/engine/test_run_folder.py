"""Who may write into a folder, and what becomes of what is in it."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.engine import lock as locks
from hdetr_d2.engine.cli import run
from hdetr_d2.engine.lock import LOCK_FILE, Writer, release_lock, take_lock
from hdetr_d2.engine.run_folder import RunFolderError, claimed
from tests.engine.toy import CONFIG, losses, run_in_process, run_until_killed


@pytest.fixture(scope="module")
def finished(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_in_process(*data, f"train.output_dir={folder}")
    return folder


@pytest.fixture
def used(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refusal(capsys: Any, *options: str) -> str:
    """The one line that the program ends with."""
    with pytest.raises(SystemExit) as stopped:
        run(["--config-file", CONFIG, *options])
    error: str = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Traceback" not in error
    assert error.count("\n") == 1
    return error


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log.txt"}


def test_a_second_run_in_a_used_folder_is_refused_and_changes_nothing(data: list[str], used: Path, capsys: Any) -> None:
    before = contents(used)
    error = refusal(capsys, *data, f"train.output_dir={used}")
    assert "--resume" in error
    assert "train.if_exists=number" in error
    assert str(used) in error
    assert contents(used) == before


def test_a_run_killed_before_its_first_checkpoint_counts_as_a_training(
    data: list[str], tmp_path: Path, capsys: Any
) -> None:
    run_until_killed(*data, f"train.output_dir={tmp_path}", at=2)
    assert "holds a training" in refusal(capsys, *data, f"train.output_dir={tmp_path}")
    run_in_process(*data, f"train.output_dir={tmp_path}", "--resume")


def test_a_start_that_failed_leaves_the_folder_free(data: list[str], tmp_path: Path, capsys: Any) -> None:
    refusal(capsys, *data, f"train.output_dir={tmp_path}", "train.best_metric=bbox/APP")
    refusal(capsys, *data, f"train.output_dir={tmp_path}", "train.init_checkpoint=no/such.pth")
    run_in_process(*data, f"train.output_dir={tmp_path}", "schedule.epochs=1", "schedule.drop_epochs=[]")


def test_numbered_folders_are_the_first_free_ones(data: list[str], used: Path) -> None:
    short = [
        *data,
        f"train.output_dir={used}",
        "train.if_exists=number",
        "schedule.epochs=1",
        "schedule.drop_epochs=[]",
    ]
    before = contents(used)
    run_in_process(*short)
    run_in_process(*short)
    assert contents(used) == before
    for number in (2, 3):
        folder = used.with_name(f"run-{number}")
        assert sorted(losses(folder)) == [0, 1, 2]
        assert f"output_dir: {folder}" in (folder / "config.yaml").read_text().replace("'", "")


def test_overwriting_leaves_nothing_of_the_former_run(data: list[str], used: Path) -> None:
    (used / "notes.txt").write_text("mine")
    short = [*data, f"train.output_dir={used}", "train.if_exists=overwrite", "schedule.drop_epochs=[]"]
    run_until_killed(*short, "schedule.epochs=20", at=1)  # no checkpoint of its own yet
    assert not list(used.glob("*.pth"))
    assert not (used / "last_checkpoint").exists()
    assert (used / "notes.txt").read_text() == "mine"
    run_in_process("--resume", *short, "schedule.epochs=1")
    assert sorted(losses(used)) == [0, 1, 2]


def test_overwriting_spares_the_weights_that_the_run_starts_from(data: list[str], used: Path, capsys: Any) -> None:
    before = contents(used)
    weights = f"train.init_checkpoint={used}/model_best.pth"
    error = refusal(capsys, *data, f"train.output_dir={used}", "train.if_exists=overwrite", weights)
    assert "model_best.pth" in error
    assert contents(used) == before


def test_resuming_a_finished_run_says_so_and_changes_nothing(data: list[str], used: Path, capfd: Any) -> None:
    before = contents(used)
    results = run_in_process("--resume", *data, f"train.output_dir={used}")
    assert "is finished: 9 steps" in capfd.readouterr().out
    assert results == json.loads((used / "evaluations.json").read_text().splitlines()[-1])["results"]
    assert contents(used) == before


def test_an_evaluation_may_use_the_folder_of_a_run(data: list[str], used: Path) -> None:
    assert run_in_process("--eval-only", "--resume", *data, f"train.output_dir={used}")["bbox"]["images"] == 5


@pytest.mark.parametrize("options", [["--resume"], ["--eval-only"], ["train.if_exists=overwrite"]])
def test_nobody_writes_beside_a_living_run(data: list[str], used: Path, capsys: Any, options: list[str]) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        pid = other.pid
        me = Writer.this_process()
        (used / LOCK_FILE).write_text(json.dumps(vars(replace(me, pid=pid, start=locks.start_of(pid)))))
        error = refusal(capsys, *data, f"train.output_dir={used}", *options)
        assert f"process {pid} on {me.host}" in error
    finally:
        other.kill()
        other.wait()
    run_in_process("--resume", *data, f"train.output_dir={used}")
    assert not (used / LOCK_FILE).exists()


ME = Writer.this_process()


@pytest.mark.parametrize(
    ("holder", "holds"),
    [
        (replace(ME, pid=2**22 + 1), False),  # no process has this id
        (replace(ME, start=1), False),  # the id is another process's by now
        (replace(ME, boot="before"), False),
        (replace(ME, host="elsewhere"), True),
        (replace(ME, namespace="pid:[1]"), True),
        (replace(ME, host="elsewhere", job="Slurm 7", attempt=0), False),  # the same job, which was requeued
        (replace(ME, host="elsewhere", job="Slurm 8", attempt=0), True),
        (replace(ME, host="elsewhere", job="Slurm 7", attempt=1), True),  # the other task of the same job
    ],
)
def test_a_lock_is_taken_over_only_from_what_is_known_to_be_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: Writer, holds: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / LOCK_FILE).write_text(json.dumps(vars(holder)))
    assert (take_lock(str(tmp_path)) == holder) is holds
    if holds:
        with (
            pytest.raises(RunFolderError, match=r"elsewhere|remove .*run\.lock"),
            claimed(str(tmp_path), purpose="start"),
        ):
            pass
    else:
        writer = Writer.from_json((tmp_path / LOCK_FILE).read_text())
        assert writer is not None
        assert (writer.pid, writer.start) == (ME.pid, ME.start)
        release_lock(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\0" * 100])
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    assert take_lock(str(tmp_path)) is None


def test_of_many_that_start_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from hdetr_d2.engine.lock import take_lock\n"
        "print('waits', flush=True); sys.stdin.readline(); print(take_lock(sys.argv[1]) is None, flush=True)\n"
        "sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    starters = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for starter in starters:
        assert starter.stdout.readline() == "waits\n"
    for starter in starters:
        starter.stdin.write("\n")
        starter.stdin.flush()
    won = [starter.stdout.readline() for starter in starters]
    for starter in starters:
        starter.communicate("\n")
    assert sorted(won) == ["False\n", "False\n", "True\n"]


def test_what_a_kill_left_half_written_is_removed(data: list[str], used: Path) -> None:
    names = ["model_0000012.pth.4194305.tmp", "inference/x.json.4194305.tmp", "config.tmp-4194305.yaml"]
    (used / "inference").mkdir(exist_ok=True)
    for name in names:
        (used / name).write_text("half")
    living = used / f"report.html.{os.getppid()}.tmp"
    living.write_text("another program's")
    run_in_process("--resume", *data, f"train.output_dir={used}")
    assert not any((used / name).exists() for name in names)
    assert living.exists()


@pytest.mark.parametrize("below", ["", "/run"])
def test_a_file_in_place_of_the_folder_is_named(data: list[str], tmp_path: Path, capsys: Any, below: str) -> None:
    (tmp_path / "taken").write_text("")
    error = refusal(capsys, *data, f"train.output_dir={tmp_path}/taken{below}")
    assert f"{tmp_path}/taken is a file" in error


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_named(
    data: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(folder: str) -> None:  # tests may run as root, whom no permission stops
        raise OSError(number, os.strerror(number), os.path.join(folder, LOCK_FILE))

    monkeypatch.setattr("hdetr_d2.engine.run_folder.take_lock", refuse)
    error = refusal(capsys, *data, f"train.output_dir={tmp_path}")
    assert str(tmp_path) in error
    assert os.strerror(number) in error


def test_a_full_disk_ends_the_run_in_one_line_and_the_run_goes_on_later(
    data: list[str], tmp_path: Path, capsys: Any
) -> None:
    options = [*data, f"train.output_dir={tmp_path}", "train.eval_period_epochs=0"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run_until_killed(*options, at=3)  # with a checkpoint
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        with pytest.raises(SystemExit) as stopped:
            run(["--config-file", CONFIG, *options, "--resume"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.count("\n") == 1
    assert os.strerror(errno.EFBIG) in error
    assert "--resume" in error
    run_in_process("--resume", *options)
    assert sorted(losses(tmp_path)) == list(range(9))


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_latest_checkpoint_is_refused_with_the_one_before(
    data: list[str], used: Path, capsys: Any, damage: str
) -> None:
    latest = used / "model_0000009.pth"
    if damage == "gone":
        latest.unlink()
    else:
        content = latest.read_bytes()
        latest.write_bytes(content[:-1000] if damage == "cut" else b"\0" * 100 + content[100:])
    error = refusal(capsys, "--resume", *data, f"train.output_dir={used}")
    assert "model_0000009.pth" in error
    command = f"echo model_0000006.pth > {used}/last_checkpoint"
    assert command in error
    subprocess.run(command, shell=True, check=True)
    run_in_process("--resume", *data, f"train.output_dir={used}")
    assert sorted(losses(used)) == list(range(9))


def test_a_killed_run_leaves_a_lock_that_the_resumed_one_takes(data: list[str], tmp_path: Path) -> None:
    options = [*data, f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=4)
    holder = Writer.from_json((tmp_path / LOCK_FILE).read_text())
    assert holder is not None
    assert holder.pid != os.getpid()
    run_in_process("--resume", *options)
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_job_that_is_started_again_resumes_by_itself(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*data, f"train.output_dir={tmp_path}"]
    run_until_killed(*options, at=4)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run_in_process(*options)
    assert sorted(losses(tmp_path)) == list(range(9))


@pytest.mark.parametrize("tag", [None, b"", b"\n"], ids=["missing", "empty", "blank"])
def test_a_run_whose_latest_checkpoint_is_not_noted_goes_on_from_the_newest_whole_one(
    data: list[str], used: Path, capfd: Any, tag: bytes | None
) -> None:
    """And is not begun again over the checkpoints that are there."""
    (used / "last_checkpoint").unlink()
    if tag is not None:
        (used / "last_checkpoint").write_bytes(tag)
    (used / "model_0000099.pth").write_bytes(b"damaged")
    run_in_process(*data, f"train.output_dir={used}", "--resume", "schedule.epochs=4")
    assert f"resuming {used}/model_0000009.pth after 9 steps" in capfd.readouterr().out


def test_a_note_of_no_text_is_one_line(data: list[str], used: Path, capsys: Any) -> None:
    (used / "last_checkpoint").write_bytes(b"\xff\x00\xfe")
    error = refusal(capsys, "--resume", *data, f"train.output_dir={used}")
    assert "model_0000009.pth is whole: to resume from it write its name into" in error


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml", "log.txt"])
def test_a_folder_in_place_of_a_file_of_the_run_is_named(data: list[str], used: Path, capsys: Any, name: str) -> None:
    (used / name).unlink(missing_ok=True)
    (used / name).mkdir()
    error = refusal(capsys, "--resume", "schedule.epochs=4", *data, f"train.output_dir={used}")
    assert f"{used}/{name}: " in error
    assert "it is in the place of a file; move it away" in error


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_a_lock_that_is_no_file_is_told_and_not_waited_for(tmp_path: Path, make: Any, kind: str) -> None:
    make(tmp_path / "run.lock")
    with pytest.raises(RunFolderError, match=rf"run\.lock: is {kind}"), claimed(str(tmp_path), purpose="start"):
        pass


@pytest.mark.parametrize("content", ["garbage", "", "[1, 2]", "{", "\0"])
def test_a_lock_that_says_nothing_is_nobody_s(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.lock").write_text(content)
    with claimed(str(tmp_path), purpose="start") as folder:
        assert folder == str(tmp_path)


def test_a_run_of_tens_of_millions_of_steps_is_a_training_too(tmp_path: Path) -> None:
    (tmp_path / "model_12345678.pth").write_bytes(b"x")
    with pytest.raises(RunFolderError, match=r"model_12345678\.pth"), claimed(str(tmp_path), purpose="start"):
        pass

"""``hdetr-d2 finetune``: wrong input is one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdetr_d2.cli.app import run
from tests.finetune.conftest import write_yolo

MODEL = ["--model", "quickstart/h_deformable_detr_generated"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_yolo(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["finetune", "{missing}", *MODEL, "--output", "{run}"], "missing"),
        (["finetune", "{empty}", *MODEL, "--output", "{run}"], "empty"),
        (["finetune", "{data}", "--model", "no_such_model", "--output", "{run}"], "no_such_model"),
        (["finetune", "{data}", "--model", "zoo:no_such_model", "--output", "{run}"], "no_such_model"),
        (["finetune", "{data}", "--model", "{foreign}", "--output", "{run}"], "foreign.pth"),
        (["finetune", "{data}", *MODEL, "--output", "{run}", "train.batchsize=2"], "batch_size"),
        (["finetune", "{data}", *MODEL, "--output", "{run}", "--epochs", "0"], "--epochs"),
        (["finetune", "{data}", *MODEL, "--output", "{run}", "--epochs", "many"], "--epochs"),
        (["finetune", "{data}", *MODEL], "--output"),
        (["finetune", "{data}", "--output", "{run}"], "--model"),
        (["finetune", "{data}", *MODEL, "--output", "{file}/run"], "file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "foreign.pth").write_bytes(b"no checkpoint")
    places = {name: str(tmp_path / name) for name in ("missing", "empty", "run", "file")}
    places |= {"data": str(data), "foreign": str(tmp_path / "foreign.pth")}
    with pytest.raises(SystemExit) as ended:
        run([argument.format(**places) for argument in arguments])
    assert ended.value.code == 2
    error = capfd.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("hdetr-d2: error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "metrics.json").exists()

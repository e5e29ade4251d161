"""``hdetr-d2 report compare``, with a training program that only writes what training leaves behind."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hdetr_d2.cli import run
from hdetr_d2.engine import comparison

Program = Callable[..., int]
Captured = pytest.CaptureFixture[str]

TRAINING = """
import json, sys
from pathlib import Path

settings = dict(item.split("=", 1) for item in sys.argv[1:] if "=" in item)
folder = Path(settings["train.output_dir"])
with open(folder / "calls", "a") as file:
    file.write("--resume\\n" if "--resume" in sys.argv else "anew\\n")
if settings.get("fail") == "yes":
    sys.exit("nothing learned")
seed, bonus = int(settings["train.seed"]), float(settings.get("bonus", 0))
results = {"bbox": {"AP": 10.0 * seed + bonus, "APr": None if seed == 2 else 3.0}}
lines = [{"iteration": 1, "results": {"bbox": {"AP": 0.0}}}, {"iteration": 2, "results": results}]
steps = [{"iteration": i, "time": t, "bbox/AP": 9.0 * i} for i, t in enumerate((0.25, 0.25, 9.0))]
(folder / "metrics.json").write_text("".join(json.dumps(line) + "\\n" for line in steps))
(folder / "evaluations.json").write_text("".join(json.dumps(line) + "\\n" for line in lines))
"""
FILE = """
seeds: [1, 2]
metrics: [bbox/AP, bbox/APr]
overrides: [schedule.epochs=4]
rows:
  plain: {config: a.py}
  with bonus, 5: {config: a.py, overrides: [bonus=5]}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A function that runs ``report compare`` with further arguments in a folder of its own: its exit code."""
    (tmp_path / "train.py").write_text(TRAINING)
    (tmp_path / "two.yaml").write_text(FILE)
    monkeypatch.setattr(comparison, "PROGRAM", (sys.executable, str(tmp_path / "train.py")))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end:
            run(["report", "compare", "two.yaml", *arguments])
        return int(end.value.code or 0)

    return call


def calls(folder: str) -> int:
    return len(Path(folder, "calls").read_text().splitlines())


def test_a_cell_is_mean_and_sample_deviation_of_the_last_evaluations(program: Program, capsys: Captured) -> None:
    assert program() == 0
    header, _, plain, bonus, *differences = capsys.readouterr().out.splitlines()
    assert header == "| run | seeds | AP | APr | ms a step | minutes |"
    assert plain.startswith("| plain | 2 | 15.0 ± 7.1 | 3.0 | 250.0 ± 0.0 | ")
    assert bonus.startswith("| with bonus, 5 | 2 | 20.0 ± 7.1 | 3.0 | 250.0 ± 0.0 | ")
    assert "| with bonus, 5 | plain | +5.0 [+5.0, +5.0] | 2 | 2 |" in differences
    assert "Ranking: with bonus, 5 > plain" in differences


def test_a_run_gets_its_row_s_and_the_common_overrides_and_those_of_the_command_line(program: Program) -> None:
    program("--seeds", "1", "extra=1")
    arguments = json.loads(Path("output/two/with_bonus_5/seed1/compare.json").read_text())["arguments"]
    assert arguments[:3] == ["--config-file", "a.py", "--resume"]
    assert arguments[3:6] == ["schedule.epochs=4", "bonus=5", "extra=1"]
    assert arguments[6] == "train.seed=1"


def test_what_is_finished_is_not_trained_again_and_further_seeds_are_added(program: Program, capsys: Captured) -> None:
    program("--seeds", "1")
    program()
    program()
    assert calls("output/two/plain/seed1") == calls("output/two/plain/seed2") == 1
    assert "| plain | 2 |" in capsys.readouterr().out


def test_a_run_that_failed_is_named_and_goes_on_the_next_time(program: Program, capsys: Captured) -> None:
    assert program("fail=yes") == 1
    assert str(Path("output/two/plain/seed1/output.txt")) in capsys.readouterr().err
    assert "nothing learned" in Path("output/two/plain/seed1/output.txt").read_text()
    assert program("fail=yes") == 1
    assert calls("output/two/plain/seed1") == 2


def test_a_folder_with_a_run_of_other_overrides_is_refused(program: Program, capsys: Captured) -> None:
    program()
    assert program("schedule.epochs=5") == 2
    assert "delete the folder" in capsys.readouterr().err
    assert calls("output/two/plain/seed1") == 1


def test_only_the_table_of_what_is_finished(program: Program, capsys: Captured) -> None:
    program("--seeds", "2")
    capsys.readouterr()
    assert program("--only-table") == 0
    assert "| plain | 1 | 20.0 |  | " in capsys.readouterr().out
    assert not Path("output/two/plain/seed1").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seeds: [1]", "must have the keys seeds, metrics and rows"),
        ("{seeds: [1], metrics: [a], rows: {x: {overrides: []}}}", 'row "x" must have the key config'),
        ("{seeds: [1], metrics: [a], rows: {x: {config: a.py, override: []}}}", "override"),
    ],
)
def test_a_file_that_lacks_something_is_refused(program: Program, capsys: Captured, content: str, message: str) -> None:
    Path("two.yaml").write_text(content)
    assert program() == 2
    assert message in capsys.readouterr().err


def test_rows_whose_names_differ_in_signs_have_folders_of_their_own_or_are_refused(
    program: Program, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "two.yaml").write_text(FILE.replace("with bonus, 5:", "plain++:"))
    assert program() == 0
    assert calls("output/two/plain_plus_plus/seed1") == 1
    (tmp_path / "two.yaml").write_text(FILE.replace("with bonus, 5:", "plain!:"))
    assert program() == 2
    assert 'rows "plain" and "plain!" would both be in output/two/plain' in capsys.readouterr().err


def test_curves_of_rows_that_belong_together_share_a_panel(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    plot_panels = comparison.plot_panels

    def spy(panels: Mapping[str, Mapping[str, Sequence[Path]]], output: Path, *, metric: str) -> None:
        asked.update(panels=panels, metric=metric)
        plot_panels(panels, output, metric=metric)

    monkeypatch.setattr(comparison, "plot_panels", spy)
    (tmp_path / "two.yaml").write_text(FILE.replace("with bonus, 5:", "plain, with bonus:"))
    assert program("--picture", "curves.png") == 0
    assert asked["metric"] == "bbox/AP"
    (lines,) = asked["panels"].values()
    assert [run.name for run in lines["with bonus"]] == ["seed1", "seed2"]
    assert list(asked["panels"]) == ["plain"]
    assert list(lines) == ["as published", "with bonus"]
    with Image.open("curves.png") as picture:
        assert picture.width > 500


def test_a_picture_of_nothing_is_refused(program: Program, capsys: Captured) -> None:
    assert program("--only-table", "--picture", "curves.png") == 2
    assert "there are no panels to draw" in capsys.readouterr().err
    assert program() == 0
    Path("output/two/plain/seed1/metrics.json").write_text('{"iteration": 1, "time": 1.0}\n')
    assert program("--picture", "curves.png") == 2
    assert "output/two/plain/seed1 has no values of bbox/AP" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1, 2]", "must have the keys"),
        ("{seeds: [1], metrics: [a], rows: [x]}", "rows must name at least one row"),
        ("{seeds: [1], metrics: [a], rows: {x: a.py}}", 'row "x" must have the key config'),
        ("{seeds: 1, metrics: [a], rows: {x: {config: a.py}}}", "seeds must be a list of integers"),
        ("{seeds: [a], metrics: [a], rows: {x: {config: a.py}}}", "seeds must be a list of integers"),
        ("{seeds: [], metrics: [a], rows: {x: {config: a.py}}}", "seeds is empty"),
        ("{seeds: [1], metrics: a, rows: {x: {config: a.py}}}", "metrics must be a list of texts"),
        ("{seeds: [1], metrics: [a], rows: {x: {config: a.py, overrides: b=1}}}", "overrides must be a list"),
    ],
)
def test_a_wrong_file_is_one_line(program: Program, capsys: Captured, content: str, message: str) -> None:
    Path("two.yaml").write_text(content)
    assert program() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdetr-d2: error: two.yaml")
    assert message in line


def test_what_a_run_left_behind_may_be_damaged_or_of_one_step(program: Program, capsys: Captured) -> None:
    assert program("--seeds", "1,x") == 2
    assert program("--seeds", "1") == 0
    folder = Path("output/two/plain/seed1")
    capsys.readouterr()
    (folder / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n')  # no time is measured of one step
    assert program("--seeds", "1") == 0
    assert "| plain | 1 | 10.0 | 3.0 |  | " in capsys.readouterr().out
    (folder / "evaluations.json").write_text("")
    assert program("--seeds", "1") == 2
    assert "without an evaluation" in capsys.readouterr().err
    (folder / "compare.json").write_text("{")
    assert program("--seeds", "1") == 2
    assert "is damaged" in capsys.readouterr().err
    Path("two.yaml").unlink()
    assert program() == 2
    assert "two.yaml cannot be read" in capsys.readouterr().err

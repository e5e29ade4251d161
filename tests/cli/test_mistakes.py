"""Every command of the program tells every mistake in one line and ends with exit code 2.

The tree of commands is walked, so that a command without a list of mistakes here fails.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

from hdetr_d2.cli import run
from hdetr_d2.cli.app import app
from tests.cli.conftest import Program

RECIPE = "h_deformable_detr_r50_12ep"
MODEL = ("--model", "foreign.pth", "--output", "out")
WHOLE = ("--model", "whole/model.pth", "--output", "out")
TRAINED = Path(__file__).parents[1] / "fixtures" / "f091f20" / "branch"
# Of each command, arguments that are wrong, and a word that the line must have. The working folder has empty/,
# photo.png, note.txt, film.mp4 (a text), broken.json, weird.json (lists of numbers), val.json (images that are not
# there), results.json, nan.json (results), mine.py (defines nothing), list.yaml, rows.yaml, foreign.pth, cut.pth (a
# half), code.pth (calls a function), zero.EXT (no byte), dir.EXT (folders), whole/ (a model), run/ (nothing recorded)
# and coco/ (a dataset).
MISTAKES: dict[str, list[tuple[list[str], str]]] = {
    "train": [
        ([], "CONFIG"),
        (["nowhere"], "nowhere"),
        (["mine.py"], "does not define"),
        ([RECIPE, "train.btch_size=2"], "did you mean batch_size"),
        ([RECIPE, "train.batch_size=two"], "train.batch_size"),
        ([RECIPE, "--num-gpus", "none"], "--num-gpus"),
        (["dir.yaml"], "dir.yaml"),
        (["zero.yaml"], "holds no mapping"),
        (["list.yaml"], "holds no mapping"),
        (["H_deformable_DETR_r50_12e"], "did you mean h_deformable_detr/h_deformable_detr_r50_12ep.py"),
        (["whole/model.pth"], "whole/model.pth"),
        (["--", "-x.py"], "-x.py"),
        ([RECIPE, "--", "-x"], "-x"),
        ([RECIPE, "train.output_dir=/proc/nowhere"], "/proc/nowhere"),
        ([RECIPE, "optimizer.lr=nan"], "optimizer.lr"),
        ([RECIPE, "schedule.epochs=inf"], "schedule.epochs"),
        ([RECIPE, "train.init_checkpoint=zoo:h_deformable_detr_r50_12e"], "did you mean h_deformable_detr_r50_12ep"),
        ([RECIPE, "--num-gpus", "-1"], "--num-gpus"),
    ],
    "eval": [
        ([], "--model and --data"),
        (["--model", "nowhere", "--data", "empty"], "nowhere"),
        (["--model", "foreign.pth", "--data", "empty"], "foreign.pth"),
        (["--model", "empty", "--data", "empty"], "empty"),
        (["--model", "zoo:nothing", "--data", "empty"], "nothing"),
        (["--annotations", "broken.json", "--results", "results.json"], "broken.json"),
        (["--annotations", "val.json", "--results", "nowhere.json"], "nowhere.json"),
        (["--annotations", "val.json"], "--results"),
        (["--annotations", "val.json", "--results", "results.json", "--style", "voc"], "--style"),
        (["--model", "cut.pth", "--data", "empty"], "cut.pth"),
        (["--model", "zero.pth", "--data", "empty"], "it is empty"),
        (["--model", "code.pth", "--data", "empty"], "needs print"),
        (["--model", "", "--data", "empty"], "names no model"),
        (["--model", "whole/model.pth", "--data", "Käse und Brot"], "Käse und Brot"),
        (["--model", "foreign.pth", "--data", "empty", "--output", "empty"], "is a folder"),
        (["--model", "foreign.pth", "--data", "empty", "--output", "/proc/nowhere/a.json"], "/proc/nowhere"),
        (["--annotations", "dir.json", "--results", "results.json"], "is a folder"),
        (["--annotations", "val.json", "--results", "dir.json"], "is a folder"),
        (["--annotations", "val.json", "--results", "zero.json"], "zero.json"),
        (["--annotations", "val.json", "--results", "nan.json"], "score nan"),
    ],
    "predict": [
        ([], "INPUT"),
        (["film.mp4", *MODEL], "film.mp4"),
        (["*.txt", *MODEL], "*.txt"),
        (["~nobody_of_this_name/a.jpg", *MODEL], "nobody_of_this_name"),
        (["x" * 5000, *MODEL], "there is no such file"),
        (["photo.png", "--model", "x" * 5000, "--output", "out"], "neither a run"),
        (["photo.png"], "--model"),
        (["photo.png", *MODEL], "foreign.pth"),
        (["nowhere.png", *MODEL], "nowhere.png"),
        (["empty", *MODEL], "empty"),
        (["photo.png", *MODEL, "--save", "paintings"], "paintings"),
        (["photo.png", *MODEL, "--annotations", "broken.json"], "broken.json"),
        (["photo.png", "--model", "nowhere", "--output", "out"], "nowhere"),
        (["photo.png", "--model", "foreign.pth", "--output", "note.txt"], "note.txt"),
        (["coco", "--model", "foreign.pth", "--output", "coco"], "--output coco: is within coco"),
        (["coco", "photo.png", "--model", "foreign.pth", "--output", "coco/found/here"], "is within coco"),
        ([".", "--model", "foreign.pth", "--output", "found"], "is within ."),
        (["co*o", "--model", "foreign.pth", "--output", "coco/found"], "is within coco"),
        (["done/pictures/photo.png", "--model", "foreign.pth", "--output", "done"], "could be overwritten"),
        (["done/pict*/*.png", "--model", "foreign.pth", "--output", "coco/../done"], "could be overwritten"),
        (["photo.png", *MODEL, "--tile", "3"], "--tile"),
        (["photo.png", *MODEL, "--batch-size", "many"], "--batch-size"),
        (["zero.mp4", *MODEL], "cannot be opened as a video"),
        (["camera:91", *MODEL], "camera:91"),
        (["dir.mp4", *MODEL], "holds no images"),
        (["", *MODEL], "names nothing"),
        (["-", *MODEL], "nothing to detect in"),
        (["-.jpg", *MODEL], "No such option: -."),
        (["./-.jpg", *MODEL], "./-.jpg"),
        (["nicht da, Käse.png", *MODEL], "nicht da, Käse.png"),
        (["photo.png", "--model", RECIPE, "--output", "out"], f"did you mean zoo:{RECIPE}"),
        (["photo.png", "--model", f"zoo:{RECIPE[:-1]}", "--output", "out"], f"did you mean {RECIPE}"),
        (["photo.png", "--model", f"zoo:{RECIPE.upper()}", "--output", "out"], f"did you mean {RECIPE}"),
        (["photo.png", "--model", "hf://owner", "--output", "out"], "hf://owner"),
        (["photo.png", "--model", "cut.pth", "--output", "out"], "cut.pth"),
        (["photo.png", "--model", "code.pth", "--output", "out"], "needs print"),
        (["photo.png", "--model", "dir.pth", "--output", "out"], "dir.pth"),
        (["photo.png", "--model", "photo.png", "--output", "out"], "no checkpoint"),
        (["photo.png", "--model", "foreign.pth", "--output", "/proc/nowhere"], "/proc/nowhere"),
        (["photo.png", *WHOLE, "--score-threshold", "2"], "score_threshold"),
        (["photo.png", *WHOLE, "--score-threshold", "nan"], "score_threshold"),
        (["photo.png", *WHOLE, "--suppress", "nan"], "suppress"),
        (["photo.png", *WHOLE, "--overlap", "nan", "--tile", "64"], "--overlap"),
        (["photo.png", *WHOLE, "--classes", "unicorn"], "unicorn"),
        (["photo.png", *WHOLE, "--num-queries", "100000"], "num_queries"),
        (["photo.png", *WHOLE, "--device", ""], "device"),
    ],
    "bench": [
        ([], "CONFIG"),
        (["nowhere"], "nowhere"),
        (["mine.py"], "defines no model"),
        ([RECIPE, "--size", "huge"], "--size"),
        ([RECIPE, "model.nothing=3"], "model.nothing"),
        ([RECIPE, "--device", "abacus"], "abacus"),
        (["list.yaml"], "list.yaml"),
        ([f"{RECIPE}x"], "did you mean"),
        ([RECIPE, "--size", "nanxnan"], "--size"),
    ],
    "configs list": [(["nothing like it"], "nothing like it")],
    "configs show": [([], "CONFIG"), (["nowhere"], "nowhere"), ([RECIPE, "--against", "nowhere"], "nowhere")],
    "configs copy": [
        ([RECIPE], "FILE"),
        (["nowhere", "a.yaml"], "nowhere"),
        ([RECIPE, "note.txt"], "note.txt"),
        ([RECIPE, "a.json"], "a.json"),
        ([RECIPE, "/proc/nowhere/a.yaml"], "/proc/nowhere"),
        ([RECIPE, "note.txt/a.yaml"], "note.txt"),
        ([RECIPE, "dir.yaml"], "dir.yaml"),
    ],
    "data check": [
        ([], "PATH"),
        (["nowhere"], "nowhere"),
        (["empty"], "empty"),
        (["broken.json"], "broken.json"),
        (["zero.json"], "zero.json"),
        (["dir.json"], "dir.json"),
        (["coco", "--output", "empty"], "is a folder"),
        (["coco", "--output", "/proc/nowhere/a.json"], "/proc/nowhere"),
    ],
    "data show": [
        ([], "PATH"),
        (["nowhere"], "nowhere"),
        (["empty"], "empty"),
        (["--annotations", "val.json"], "--images"),
        (["--annotations", "val.json", "--images", "empty"], "image"),
        (["--annotations", "broken.json", "--images", "empty"], "broken.json"),
        (["empty", "--split", "half"], "--split"),
        (["empty", "--image-ids", "a"], "--image-ids"),
        (["coco", "--score-threshold", "nan"], "--score-threshold"),
        (["coco", "--output", "/proc/nowhere/a.png"], "/proc/nowhere"),
        (["coco", "--output", "out"], "such as out.png"),
        (["coco", "--output", "out.txt"], "such as out.txt.png"),
        (["coco", "--results", "nan.json"], "score nan"),
    ],
    "data convert": [
        (["empty"], "--output"),
        (["nowhere", "--output", "out"], "nowhere"),
        (["empty", "--output", "out"], "empty"),
        (["empty", "--output", "note.txt"], "note.txt"),
        (["weird.json", "--output", "out"], "weird.json"),
        (["~nobody_of_this_name/photos", "--output", "out"], "nobody_of_this_name"),
    ],
    "data generate": [
        (["--num-train", "no"], "--num-train"),
        (["--format", "voc"], "--format"),
        (["--output", "note.txt", "--num-train", "1", "--num-val", "1"], "note.txt"),
        (["--num-classes", "100000", "--output", "out"], "num_classes"),
        (["--image-size", "96", "--largest-size", "64", "--output", "out"], "image_size"),
        (["--output", "/proc/nowhere", "--num-train", "1", "--num-val", "1"], "/proc/nowhere"),
    ],
    "report curves": [
        ([], "RUN"),
        (["nowhere"], "nowhere"),
        (["empty"], "empty"),
        (["note.txt", "--output", "curves.png"], "note.txt"),
        (["run"], "nothing is recorded yet in run"),
        (["zero.json"], "zero.json"),
        (["run", "--output", "empty"], "is a folder"),
        (["run", "--output", "/proc/nowhere/a.png"], "/proc/nowhere"),
    ],
    "report longtail": [
        ([], "--results"),
        (["empty"], "empty"),
        (["--annotations", "broken.json", "--results", "results.json"], "broken.json"),
        (["--annotations", "val.json"], "--results"),
    ],
    "report compare": [
        ([], "FILE"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["note.txt"], "note.txt"),
        (["note.txt", "--seeds", "one"], "--seeds"),
        (["zero.yaml"], "zero.yaml"),
        (["rows.yaml", "--output", "note.txt"], "note.txt"),
        (["rows.yaml", "--output", "/proc/nowhere"], "/proc/nowhere"),
        (["rows.yaml", "--seeds", "-1"], "negative"),
    ],
    "report matching": [([], "RUN"), (["nowhere"], "nowhere"), (["empty"], "empty"), (["note.txt"], "note.txt")],
    "report queries": [
        ([], "IMAGE"),
        (["photo.png"], "--model"),
        (["--model", "nowhere", "photo.png"], "nowhere"),
        (["--model", "foreign.pth", "photo.png"], "foreign.pth"),
        (["--model", "whole/model.pth", "zero.png"], "zero.png"),
        (["--model", "whole/model.pth", "dir.png"], "is a folder"),
        (["--model", "whole/model.pth", "photo.png", "--distinct", "nan"], "--distinct"),
    ],
    "report duplicates": [([], "RUN"), (["empty"], "empty"), (["nowhere"], "nowhere")],
    "report errors": [
        ([], "RUN"),
        (["empty"], "empty"),
        (["--annotations", "val.json"], "--results"),
        (["--annotations", "broken.json", "--results", "results.json"], "broken.json"),
        (["--annotations", "val.json", "--results", "broken.json"], "broken.json"),
        (["empty", "--score-threshold", "2"], "--score-threshold"),
        (["--annotations", "val.json", "--results", "nan.json"], "score nan"),
        (["--annotations", "val.json", "--results", "results.json", "--score-threshold", "nan"], "--score-threshold"),
    ],
    "finetune": [
        ([], "PATH"),
        (["nowhere", "--model", RECIPE, "--output", "out"], "nowhere"),
        (["empty", "--model", RECIPE, "--output", "out"], "empty"),
        (["zero.json", "--model", RECIPE, "--output", "out"], "zero.json"),
        (["note.txt", "--model", RECIPE, "--output", "out"], "note.txt"),
        (["coco", "--model", "cut.pth", "--output", "out"], "cut.pth"),
        (["coco", "--model", "code.pth", "--output", "out"], "needs print"),
        (["coco", "--model", f"zoo:{RECIPE[:-1]}", "--output", "out"], f"did you mean {RECIPE}"),
        (["coco", "--model", RECIPE, "--output", "/proc/nowhere"], "/proc/nowhere"),
        (["coco", "--model", RECIPE, "--output", "note.txt"], "note.txt"),
        (["coco", "--model", RECIPE, "--output", "out", "--epochs", "nan"], "--epochs"),
    ],
    "convert": [
        ([], "SOURCE"),
        (["nowhere.pth", "--output", "out.pth"], "nowhere.pth"),
        (["foreign.pth", "out.pth"], "--from"),
        (["foreign.pth", "out.pth", "--from", "nobody"], "nobody"),
        (["empty", "out.pth"], "empty"),
        (["note.txt", "out.pth"], "note.txt"),
        (["zoo:nothing", "out.pth"], "nothing"),
        (["hf://nothing", "out.pth"], "hf://nothing"),
        (["file://there/w.pth", "out.pth"], "file://there/w.pth"),
        (["foreign.pth", "out.pth", "--output", "other.pth"], "--output"),
        (["foreign.pth", "out.pth", "--classes", "some"], "--classes"),
        (["cut.pth", "out.pth"], "cut.pth"),
        (["zero.safetensors", "out.pth"], "it is empty"),
        (["code.pth", "out.pth"], "needs print"),
        (["-.pth", "out.pth"], "No such option: -."),
        (["whole/model.pth", "/proc/nowhere/out.pth"], "/proc/nowhere"),
        (["whole/model.pth", "out.pth", "--num-queries", "nan"], "--num-queries"),
    ],
    "export": [
        ([], "--model"),
        (["--model", "nowhere", "--output", "m.onnx"], "nowhere"),
        (["--model", "foreign.pth", "--output", "m.onnx"], "foreign.pth"),
        (["--model", "empty", "--output", "m.onnx"], "empty"),
        (["--model", "foreign.pth", "--output", "note.txt/m.onnx"], "note.txt"),
        (["--model", "nowhere", "--random-weights", "--output", "m.onnx"], "nowhere"),
        (["--model", RECIPE, "--random-weights", "--output", "m.onnx", "--check", "empty"], "empty"),
        (["--model", "cut.pth", "--output", "m.onnx"], "cut.pth"),
        (["--model", "foreign.pth", "--output", "/proc/nowhere/m.onnx"], "/proc/nowhere"),
        (["--model", "foreign.pth", "--output", "empty"], "empty"),
        (["--model", "whole/model.pth", "--output", "m.onnx", "--size", "0", "0"], "size"),
        (["--model", RECIPE, "--random-weights", "--output", "m.onnx", "--check", "zero.json"], "zero.json"),
        (["--model", RECIPE, "--random-weights", "--output", "m.onnx", "--check-images", "0"], "--check-images"),
        (["--model", RECIPE, "--random-weights", "--output", "m.onnx", "photo.png"], "--check"),
        (["--model", "foreign.pth", "--output", "m.onnx", "--precision", "half"], "--precision"),
        (["--model", "foreign.pth", "--output", "m.onnx", "--precision", "int8"], "--calibrate"),
        (["--model", "foreign.pth", "--output", "m.onnx", "--precision", "int8", "--calibrate", "empty"], "empty"),
    ],
    "parity": [
        ([], "FILE.npz"),
        (["nowhere.npz"], "nowhere.npz"),
        (["note.txt"], "note.txt"),
        (["empty"], "empty"),
        (["zero.npz"], "zero.npz"),
        (["cut.pth"], "cut.pth"),
    ],
    "serve": [
        ([], "RUN"),
        (["nowhere"], "nowhere"),
        (["nowhere.onnx"], "nowhere.onnx"),
        (["zero.onnx"], "zero.onnx"),
        (["note.txt"], "note.txt"),
        (["empty"], "empty"),
        (["foreign.pth"], "foreign.pth"),
        (["cut.pth"], "cut.pth"),
        ([f"zoo:{RECIPE[:-1]}"], f"did you mean {RECIPE}"),
        (["zero.onnx", "--device", "cuda"], "--device cuda"),
        (["foreign.pth", "--port", "100000"], "--port"),
        (["foreign.pth", "--host", "nowhere.invalid"], "nowhere.invalid"),
        (["foreign.pth", "--timeout", "nan"], "--timeout"),
        (["foreign.pth", "--max-megabytes", "nan"], "--max-megabytes"),
        (["foreign.pth", "--batch-size", "0"], "--batch-size"),
    ],
}


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its name below the program."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield name, command
    for word in sorted(inner or ()):
        yield from leaves(inner[word], f"{name} {word}".strip())


def groups(command: Any, name: str = "") -> Iterator[str]:
    """The program and its groups of commands."""
    inner = getattr(command, "commands", None)
    if inner:
        yield name
        for word in sorted(inner):
            yield from groups(inner[word], f"{name} {word}".strip())


ROOT = typer.main.get_command(app)
COMMANDS = dict(leaves(ROOT))
CASES = [(name, *case) for name in COMMANDS for case in MISTAKES.get(name, [])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (40, 30)).save("photo.png")
    Path("done/pictures").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save("done/pictures/photo.png")
    Path("note.txt").write_text("a note")
    Path("film.mp4").write_text("no film")
    Path("broken.json").write_text('{"images": [')
    Path("weird.json").write_text('{"images": [1, 2], "annotations": [3], "categories": [4]}')
    Path("mine.py").write_text("number = 3\n")
    content = {
        "images": [{"id": 1, "file_name": "gone.png", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    Path("val.json").write_text(json.dumps(content))
    Path("results.json").write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1.0}]))
    Path("nan.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": NaN}]')
    for name in (
        "zero.json",
        "zero.mp4",
        "zero.npz",
        "zero.onnx",
        "zero.png",
        "zero.pth",
        "zero.safetensors",
        "zero.yaml",
    ):
        Path(name).touch()
    for name in ("dir.json", "dir.mp4", "dir.png", "dir.pth", "dir.yaml", "run", "coco", "whole"):
        Path(name).mkdir()
    (tmp_path / "run" / "metrics.json").touch()
    Path("list.yaml").write_text("- 1\n")
    rows = {"seeds": [1], "metrics": ["bbox/AP"], "rows": {"one": {"config": RECIPE}}}
    Path("rows.yaml").write_text(json.dumps(rows))
    for split in ("train", "val"):
        (tmp_path / "coco" / f"{split}.json").write_text(json.dumps(content).replace("gone", f"{split}"))
        Image.new("RGB", (40, 30)).save(tmp_path / "coco" / f"{split}.png")
    write_checkpoints(tmp_path)
    return tmp_path


class Call:
    """Calls a function when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("called",)


def write_checkpoints(folder: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, folder / "foreign.pth")
    torch.save({"model": Call()}, folder / "code.pth")
    shutil.copy(TRAINED / "config.yaml", folder / "whole")
    shutil.copy(TRAINED / "model_0000080.pth", folder / "whole" / "model.pth")
    whole = (folder / "whole" / "model.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])


def require_one_line(program: Program, arguments: list[str], word: str) -> None:
    ended = program(*arguments)
    lines = [line for line in ended.err.splitlines() if not line.startswith("note: ")]
    assert ended.code == 2, ended
    assert len(lines) == 1, ended
    assert lines[0].startswith("hdetr-d2: error: "), ended
    assert word in lines[0], ended
    assert "Traceback" not in ended.out + ended.err


def test_no_command_is_without_its_mistakes() -> None:
    assert set(COMMANDS) <= set(MISTAKES)


@pytest.fixture(autouse=True)
def nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.mark.parametrize(("command", "arguments", "word"), CASES)
def test_a_mistake_is_one_line_and_exit_code_two(
    program: Program, folder: Path, command: str, arguments: list[str], word: str
) -> None:
    require_one_line(program, [*command.split(), *arguments], word)


@pytest.mark.parametrize("name", ["film.mp4", "zero.mp4", "camera:91"])
def test_libraries_add_nothing_to_a_mistake(folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["predict", name, *MODEL])
    (line,) = capfd.readouterr().err.splitlines()
    assert name in line


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_does_not_exist_is_told(program: Program, folder: Path, command: str) -> None:
    require_one_line(program, [*command.split(), "--nonsense"], "--nonsense")


@pytest.mark.parametrize("group", list(groups(ROOT)))
def test_a_command_that_does_not_exist_is_told(program: Program, group: str) -> None:
    require_one_line(program, [*group.split(), "nonsense"], "nonsense")


@pytest.mark.parametrize("command", [*groups(ROOT), *COMMANDS])
def test_help_is_there_with_an_example(program: Program, command: str) -> None:
    ended = program(*command.split(), "--help")
    assert ended.code == 0
    assert "Usage:" in ended.out
    assert not ended.err
    assert command not in COMMANDS or f"hdetr-d2 {command}" in ended.out.replace("\n", " ").partition("Usage:")[2][20:]

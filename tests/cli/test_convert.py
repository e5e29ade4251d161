"""``hdetr-d2 convert``: weights from and to other projects, twins, published models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hdetr_d2 import Detector, model_zoo
from hdetr_d2.checkpoint.convert import from_ours
from tests.cli.conftest import Program, told_in_one_line

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
HEAD = "transformer.heads.class_embed.0.weight"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(FIXTURES))
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HDETR_D2_DOWNLOAD", raising=False)
    return iter([None])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of a small run, which trained DINO."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(FIXTURES / "dino" / "config.yaml", folder)
    shutil.copy(FIXTURES / "dino" / "model_0000080.pth", folder / "model_final.pth")
    return folder


def scores(path: Path) -> torch.Tensor:
    detector = Detector.load(path, device="cpu", score_threshold=0.0)
    found = detector(FIXTURES / "data" / "images" / "000.png").scores
    assert isinstance(found, torch.Tensor)
    assert len(found)
    return found


@pytest.mark.parametrize("form", ["by its ending", "by --to"])
def test_a_run_becomes_a_twin_that_detects_elsewhere_and_goes_back(
    form: str, run: Path, tmp_path: Path, program: Program
) -> None:
    expected = scores(run)
    if form == "by --to":
        done = program("convert", run / "model_final.pth", "--to", "safetensors")
        twin = run / "model_final.safetensors"
    else:
        twin = tmp_path / "twin.safetensors"
        done = program("convert", run, twin)
    assert done.code == 0, done.err
    assert str(twin) in done.out
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (twin, twin.with_suffix(".json")):
        shutil.copy(path, elsewhere)
    shutil.rmtree(run)
    assert torch.equal(scores(elsewhere / twin.name), expected)
    assert program("convert", elsewhere / twin.name, elsewhere / "alone.pth").code == 0
    twin_there = elsewhere / twin.name
    twin_there.unlink()
    twin_there.with_suffix(".json").unlink()
    assert torch.equal(scores(elsewhere / "alone.pth"), expected)


def test_rows_go_along_by_the_names_that_a_described_file_says(run: Path, tmp_path: Path, program: Program) -> None:
    assert program("convert", run, tmp_path / "described.pth").code == 0
    described = Detector.load(tmp_path / "described.pth", device="cpu")
    former = list(described.class_names)
    (tmp_path / "names.json").write_text(json.dumps(["new", former[1]]))
    done = program(
        "convert", tmp_path / "described.pth", tmp_path / "two.pth", "--annotations", tmp_path / "names.json"
    )
    assert done.code == 0, done.err
    assert "kept" in done.out
    assert former[1] in done.out
    two = Detector.load(tmp_path / "two.pth", device="cpu")
    assert two.class_names == ("new", former[1])
    assert torch.equal(two.model.state_dict()[HEAD][1], described.model.state_dict()[HEAD][1])


def test_another_projects_names_are_recognised_and_a_config_makes_it_describe_itself(
    run: Path, tmp_path: Path, program: Program
) -> None:
    state = torch.load(run / "model_final.pth", weights_only=True)["model"]
    without = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    torch.save(from_ours("dino", without), tmp_path / "theirs.pth")
    arguments = ("convert", tmp_path / "theirs.pth", tmp_path / "ours.pth", "--config", run / "config.yaml")
    done = program(*arguments)
    assert done.code == 1, done.err
    assert {line.partition("backbone.")[0] for line in done.err.splitlines()} == {"not in the checkpoint: "}
    written = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert written["model"].keys() == without.keys()
    assert len(written["description"]["class_names"]) == len(without[HEAD])


def test_what_does_not_fit_the_config_is_listed_and_gives_exit_code_one(
    run: Path, tmp_path: Path, program: Program
) -> None:
    other = FIXTURES / "branch" / "config.yaml"
    done = program("convert", run, tmp_path / "ours.pth", "--config", other)
    assert done.code == 1
    assert "not in the model: transformer." in done.err


def test_a_published_model_that_is_not_here_is_told_with_where_to_put_it(tmp_path: Path, program: Program) -> None:
    weights = model_zoo.entries()["h_deformable_detr_r50_12ep"].weights
    assert weights is not None
    message = told_in_one_line(program("convert", "zoo:h_deformable_detr_r50_12ep"))
    assert weights.url in message
    assert str(tmp_path / "cache" / "weights" / weights.file) in message


def test_downloading_is_allowed_for_one_command(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("HDETR_D2_MIRROR", "http://127.0.0.1:9")
    message = told_in_one_line(program("convert", "zoo:h_deformable_detr_r50_12ep", "--download"))
    assert "no connection" in message
    assert "http://127.0.0.1:9/" in message
    assert "HDETR_D2_DOWNLOAD" not in os.environ


WRONG = {
    "no such file": (["convert", "absent.pth", "out.pth"], "absent.pth"),
    "no such project": (["convert", "bare.pth", "out.pth", "--from", "nobody"], "nobody"),
    "no such target": (["convert", "bare.pth", "out.pth", "--to", "nobody"], "nobody"),
    "unknown names": (["convert", "foreign.pth", "out.pth"], "--from"),
    "not of that project": (["convert", "foreign.pth", "out.pth", "--from", "dino"], "foreign.pth"),
    "no folder": (["convert", "bare.pth", "nowhere/out.pth"], "nowhere"),
    "the source itself": (["convert", "bare.pth", "bare.pth"], "the source itself"),
    "no output": (["convert", "bare.pth"], "name the file to write"),
    "another ending": (["convert", "bare.pth", "out.pth", "--to", "safetensors"], ".safetensors"),
    "names without classes": (["convert", "bare.pth", "out.pth", "--source-names", "coco"], "--annotations"),
    "unknown source names": (["convert", "bare.pth", "out.pth", "--annotations", "names.json"], "--source-names"),
    "no json": (["convert", "bare.pth", "o.pth", "--source-names", "coco", "--annotations", "no.json"], "no.json"),
    "no such config": (["convert", "bare.pth", "out.pth", "--config", "nothing"], "nothing"),
    "a config for others": (["convert", "bare.pth", "o.pth", "--to", "dino", "--config", "x"], "--config"),
    "an empty folder": (["convert", "empty", "out.pth"], "empty"),
    "no such entry": (["convert", "zoo:nothing"], "nothing"),
    "no repository": (["convert", "hf://owner", "out.pth"], "hf://owner"),
    "no such option": (["convert", "bare.pth", "out.pth", "--nothing"], "--nothing"),
    "num_queries": (["convert", "bare.pth", "out.pth", "--num-queries", "0"], "--num-queries"),
    "no file of that address": (["convert", "file:///nowhere/w.pth", "out.pth"], "/nowhere/w.pth"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_one_line(
    case: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.load(FIXTURES / "detr" / "model_0000080.pth", weights_only=True)["model"]
    torch.save({"model": state}, "bare.pth")
    torch.save({"model": {"some.weight": torch.zeros(2)}}, "foreign.pth")
    Path("names.json").write_text('["a", "b"]')
    Path("empty").mkdir()
    arguments, expected = WRONG[case]
    assert expected in told_in_one_line(program(*arguments))
    assert not Path("out.pth").exists()


def test_the_twins_weights_are_those_of_the_file(run: Path, tmp_path: Path, program: Program) -> None:
    program("convert", run, tmp_path / "twin.safetensors")
    state = torch.load(run / "model_final.pth", weights_only=True)["model"]
    twin = load_file(tmp_path / "twin.safetensors")
    assert twin.keys() == state.keys()
    assert [key for key in twin if not torch.equal(twin[key], state[key])] == []

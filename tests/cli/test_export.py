"""``hdetr-d2 export``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Program, told_in_one_line

FIXTURES = Path(__file__).parents[1] / "fixtures" / "f091f20"
CHECKPOINT = FIXTURES / "dino" / "model_0000080.pth"
TINY = [
    "model.neck.necks.0.depth_mult=0.34",
    "model.neck.necks.0.out_channels=32",
    "model.neck.necks.0.encoder.layer.hidden_dim=32",
    "model.transformer.embed_dim=32",
    "model.transformer.decoder.num_layers=1",
    "model.transformer.decoder.layer.hidden_dim=32",
    "model.transformer.query_source.num_queries=10",
]


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(FIXTURES))


def test_a_run_is_exported_and_compared_on_images(tmp_path: Path, program: Program) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    images = sorted((FIXTURES / "data" / "images").iterdir())[:2]
    output = tmp_path / "new" / "m.onnx"
    done = program("export", "--model", CHECKPOINT, "--output", output, "--size", 64, 64, "--check", *images)
    assert done.code == 0, done.err
    assert "images of 64 x 64" in done.out
    assert "onnxruntime differs by" in done.out
    assert output.is_file()


def test_random_weights_need_no_file(tmp_path: Path, program: Program) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    output = tmp_path / "m.onnx"
    arguments = ["--model", "rtdetr_r18_72ep", "--random-weights", "--output", output, "--size", 64, 96]
    done = program("export", *arguments, *TINY)
    assert done.code == 0, done.err
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 64, 96]


WRONG = {
    "no model": (["export", "--output", "m.onnx"], "--model"),
    "no output": (["export", "--model", "absent.pth"], "--output"),
    "no such file": (["export", "--model", "absent.pth", "--output", "m.onnx"], "absent.pth"),
    "a config's name": (["export", "--model", "rtdetr_r18_72ep", "--output", "m.onnx"], "rtdetr_r18_72ep"),
    "no such config": (["export", "--model", "nothing", "--random-weights", "--output", "m.onnx"], "nothing"),
    "a folder": (["export", "--model", CHECKPOINT, "--output", "."], "is a folder"),
    "no size": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "--size", "0", "64"], "--size"),
    "images without check": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "photos"], "--check"),
    "no images": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "--check", "photos"], "photos"),
    "no such key": (["export", "--model", CHECKPOINT, "--output", "m.onnx", "model.nothing=1"], "model.nothing"),
    "two configs": (
        ["export", "--model", "a", "--config", "b", "--random-weights", "--output", "m.onnx"],
        "leave --config out",
    ),
    "no entry": (["export", "--model", "zoo:nothing", "--output", "m.onnx"], "nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_one_line(
    case: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected = WRONG[case]
    assert expected in told_in_one_line(program(*arguments))
    assert not Path("m.onnx").exists()

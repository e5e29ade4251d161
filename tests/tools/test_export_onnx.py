"""tools/export_onnx.py: what it refuses, and a small RT-DETR from a checkpoint."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2.engine.config import load

ROOT = Path(__file__).parents[2]
RECIPE = "rtdetr_r18_72ep"
SMALL = [
    "model.neck.necks.0.depth_mult=0.34",
    "model.neck.necks.0.out_channels=32",
    "model.neck.necks.0.encoder.layer.hidden_dim=32",
    "model.transformer.embed_dim=32",
    "model.transformer.decoder.num_layers=1",
    "model.transformer.decoder.layer.hidden_dim=32",
    "model.transformer.query_source.num_queries=10",
]


@pytest.fixture
def tool() -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("export_onnx", ROOT / "tools" / "export_onnx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def program(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that runs the tool with arguments: its exit status."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["export_onnx.py", *arguments])
        return int(tool.main())

    return run


def test_without_a_number_of_classes_nothing_is_built(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(str(tmp_path / "m.onnx"), "--config-file", RECIPE) == 2
    assert "how many classes?" in capsys.readouterr().err


def test_weights_of_another_model_are_refused_by_name(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"transformer.heads.class_embed.0.weight": torch.zeros(3, 8)}}, tmp_path / "w.pth")
    arguments = ["--config-file", RECIPE, "--weights", str(tmp_path / "w.pth"), *SMALL]
    assert program(str(tmp_path / "m.onnx"), *arguments) == 2
    assert f"w.pth does not fit {RECIPE}" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


DETR_SMALL = [
    "model.transformer.encoder.num_layers=1",
    "model.transformer.decoder.num_layers=1",
    "model.transformer.encoder.layer.hidden_dim=32",
    "model.transformer.query_source.num_queries=10",
]


def test_a_softmax_model_is_exported_with_the_classes_of_its_weights_for_images_of_any_size(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = instantiate(load("detr_r50_150ep", [*DETR_SMALL, "dataset.num_classes=4"]).model)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    output = tmp_path / "new" / "m.onnx"
    arguments = ["--config-file", "detr_r50_150ep", "--weights", str(tmp_path / "w.pth"), "dataset.short_side=96"]
    assert program(str(output), *arguments, "--check", *DETR_SMALL) == 0
    told = capsys.readouterr().out
    assert "images of any size ->" in told
    assert "the file differs by" in told
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert not any(isinstance(size, int) for size in session.get_inputs()[0].shape[2:])
    scores, labels, _ = session.run(None, {"images": 255 * torch.rand(1, 3, 96, 128).numpy()})
    assert (scores[0, 1:] <= scores[0, :-1]).all()
    assert labels.max() < 4


@pytest.mark.parametrize(
    ("recipe", "size"),
    [
        ("rtdetr_r50_72ep", (640, 640)),
        ("h_deformable_detr_r50_12ep", (800, 1067)),
        ("h_deformable_detr_generated", (128, 171)),
    ],
)
def test_images_are_as_large_as_the_recipe_evaluates_them(tool: ModuleType, recipe: str, size: tuple[int, int]) -> None:
    assert tool.evaluation_size(load(recipe)) == size


@pytest.mark.parametrize("kind", ["a folder", "below a file"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_built(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path if kind == "a folder" else tmp_path / "file" / "m.onnx"
    assert program(str(output), "--config-file", RECIPE, "--weights", "absent.pth", *SMALL) == 2
    error = capsys.readouterr().err
    assert str(output) in error
    assert "absent.pth" not in error


def test_weights_of_other_classes_than_the_config_says_are_refused(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = instantiate(load(RECIPE, [*SMALL, "dataset.num_classes=4"]).model)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    arguments = ["--config-file", RECIPE, "--weights", str(tmp_path / "w.pth"), "dataset.num_classes=5", *SMALL]
    assert program(str(tmp_path / "m.onnx"), *arguments) == 2
    assert "has 4 rows in the file and 5 in the model" in capsys.readouterr().err

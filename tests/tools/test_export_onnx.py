"""tools/export_onnx.py: what it refuses, and a small RT-DETR from a checkpoint."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

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
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that runs the tool with arguments: its exit status."""
    spec = importlib.util.spec_from_file_location("export_onnx", ROOT / "tools" / "export_onnx.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["export_onnx.py", *arguments])
        return module.main()

    return run


def test_a_checkpoint_becomes_a_file_that_onnxruntime_agrees_with(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = instantiate(load(RECIPE, [*SMALL, "dataset.num_classes=4"]).model)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    weights = ["--weights", str(tmp_path / "w.pth"), "--size", "64", "96", "--check"]
    assert program(str(tmp_path / "m.onnx"), "--config-file", RECIPE, *weights, *SMALL) == 0
    assert "onnxruntime differs by" in capsys.readouterr().out


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

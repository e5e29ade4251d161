"""What ``train.init_checkpoint`` may name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hdetr_d2 import model_zoo
from hdetr_d2.detector import published
from hdetr_d2.engine.cli import run
from hdetr_d2.engine.start_weights import start_file
from hdetr_d2.model_zoo import MissingWeightsError

NAME = "h_deformable_detr_r50_12ep"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HDETR_D2_DOWNLOAD", raising=False)


def test_paths_and_what_only_detectron2_knows_stay_as_they_are(tmp_path: Path) -> None:
    for source in ("", "output/model_final.pth", "detectron2://ImageNetPretrained/torchvision/R-50.pkl"):
        assert start_file(source) == source
    assert start_file((tmp_path / "w.pth").as_uri()) == str(tmp_path / "w.pth")


def test_a_published_model_is_its_converted_file(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = model_zoo.entries()[NAME].weights
    assert weights is not None
    with pytest.raises(MissingWeightsError, match=weights.file):
        start_file(f"zoo:{NAME}")
    path = model_zoo.weights_folder() / weights.file
    path.parent.mkdir(parents=True)
    torch.save({"model": {}}, path)
    monkeypatch.setattr(published, "_convert", lambda entry, path: {"model": {"some.weight": torch.ones(1)}})
    assert torch.load(start_file(f"zoo:{NAME}"), weights_only=True)["model"].keys() == {"some.weight"}


def test_weights_that_are_not_here_are_told_before_any_process_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config-file", NAME, f"train.init_checkpoint=zoo:{NAME}", f"train.output_dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as ended:
        run([*arguments, "train.device=cpu"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "--download" in lines[0]
    assert not (tmp_path / "run").exists()

"""What fine-tuning starts from, and how classes go along."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.errors import UserError
from hdetr_d2.finetune.start import match_classes, open_start, write_start_weights


def test_a_config_starts_from_nothing_and_says_so() -> None:
    start = open_start("quickstart/h_deformable_detr_generated")
    assert start.source is None
    assert "from nothing" in start.note


def test_a_published_config_without_its_weights_says_why_it_starts_from_nothing() -> None:
    start = open_start("h_deformable_detr_r50_12ep")
    assert start.source is None
    assert start.note.startswith("from nothing:")


@pytest.mark.parametrize("model", ["no_such_config", "zoo:no_such_model", "missing.pth", "missing/run.safetensors"])
def test_what_is_not_there_is_refused(model: str) -> None:
    with pytest.raises(UserError):
        open_start(model)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        open_start(str(tmp_path))


def test_classes_go_along_by_name_and_new_ones_start_anew(trained: Path, tmp_path: Path) -> None:
    start = open_start(str(trained))
    assert start.source is not None
    match = match_classes(start.source, ["green", "violet", "Red", "yellow"])
    assert match.rows == (1, None, 0, None)
    write_start_weights(start.source, match, tmp_path / "weights.pth")
    before, after = start.source.state, load_checkpoint(tmp_path / "weights.pth")["model"]
    head = "transformer.heads.class_embed.0.weight"
    assert after[head].shape[0] == 4
    assert torch.equal(after[head][0], before[head][1])
    assert torch.equal(after[head][2], before[head][0])
    others = [key for key in before if "class_embed" not in key and "label_embed" not in key]
    assert len(others) > 50
    assert all(torch.equal(after[key], before[key]) for key in others if key in after)


def test_names_that_differ_in_case_only_are_matched_as_they_are_written(trained: Path) -> None:
    start = open_start(str(trained))
    assert start.source is not None
    assert match_classes(start.source, ["red", "Red", "RED"]).rows == (0, None, None)


def test_a_model_of_unknown_class_names_gives_its_weights_without_classes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS")
    for name in (trained.name, "config.yaml"):
        shutil.copy(trained.parent / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    start = open_start(str(tmp_path / trained.name))
    assert start.source is not None
    assert match_classes(start.source, ["class 0", "red"]).rows == (None, None)

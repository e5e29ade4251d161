"""``hdetr-d2 bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program

CONFIG = Path(__file__).parents[1] / "fixtures" / "f091f20" / "detr" / "config.yaml"
LAZY = """
from detectron2.config import LazyCall as L
from torch import nn

class Mean(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 1, bias=False)
    def forward(self, batch):
        return [{"instances": self.layer(each["image"].float()).mean()} for each in batch]

model = L(Mean)(channels=5)
"""


def test_a_model_is_counted_and_timed(program: Program) -> None:
    ended = program("bench", CONFIG, "--size", "64x96", "--repeats", 2, "--device", "cpu", "--json")
    cost = json.loads(ended.out)
    assert ended.code == 0
    assert cost["parameters"] >= cost["trainable_parameters"] > 0
    assert cost["flops"] > 0
    assert cost["fastest"] <= cost["milliseconds"] <= cost["slowest"]
    assert cost["memory_mebibytes"] > 0
    assert not {"hdetr_d2::ms_deform_attn"} & set(cost["uncounted"])


def test_any_lazyconfig_is_counted_exactly(program: Program, tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text(LAZY)
    arguments = ["bench", tmp_path / "lazy.py", "--size", "10x20", "--batch-size", 3, "--repeats", 1]
    cost = json.loads(program(*arguments, "--json", "--device", "cpu").out)
    assert (cost["parameters"], cost["batch_size"]) == (15, 3)
    assert cost["flops"] == 15 * 10 * 20  # of one image, a multiply-add is one
    text = program(*arguments, "--device", "cpu", "model.channels=7").out
    assert "parameters    0.00 M" in text
    assert "on cpu, 3 x 10 x 20" in text


@pytest.mark.parametrize("override", ["model.chanels=3", "model=3"])
def test_an_override_of_a_lazyconfig_that_cannot_be_is_told(program: Program, tmp_path: Path, override: str) -> None:
    (tmp_path / "lazy.py").write_text(LAZY)
    ended = program("bench", tmp_path / "lazy.py", override)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1

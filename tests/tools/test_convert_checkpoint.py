"""The conversion tool, on a fabricated checkpoint with the names of the authors' R50 model."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch
from detectron2.config import instantiate

from hdetr_d2.checkpoint.authors import AuthorsLayout, to_authors
from hdetr_d2.model_zoo import get_config

TOOL = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"
CONFIG = "h_deformable_detr/h_deformable_detr_r50_12ep.py"


def convert(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True)


def test_a_checkpoint_as_the_authors_save_it_becomes_one_that_fits_the_recipe(tmp_path: Path) -> None:
    config = get_config(CONFIG)
    config.model.num_classes = 91
    state = instantiate(config.model).state_dict()
    theirs = to_authors(state, layout=AuthorsLayout(num_layers=6, two_stage=True, refine=True))
    assert len(theirs) == 631
    # Their checkpoints hold the command line, too, which is no tensor.
    torch.save({"model": theirs, "epoch": 11, "args": Namespace(lr=2e-4)}, tmp_path / "theirs.pth")
    arguments = ["--from", "hdetr", "--classes", "coco", "--config-file", CONFIG]
    done = convert(tmp_path / "theirs.pth", tmp_path / "ours.pth", *arguments)
    assert done.returncode == 0, done.stderr
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)["model"]
    assert ours["transformer.heads.class_embed.5.weight"].shape == (80, 256)
    person = state["transformer.heads.class_embed.5.weight"][1]
    assert torch.equal(ours["transformer.heads.class_embed.5.weight"][0], person)
    objectness = state["transformer.heads.encoder_class_embed.weight"][0]
    assert torch.equal(ours["transformer.heads.encoder_class_embed.weight"][0], objectness)


def test_a_checkpoint_of_another_project_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    done = convert(tmp_path / "other.pth", tmp_path / "ours.pth", "--from", "hdetr")
    assert done.returncode == 2
    assert "other.pth" in done.stderr and "fc.weight" in done.stderr
    assert not (tmp_path / "ours.pth").exists()

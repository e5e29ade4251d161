"""The conversion tool as a program, on checkpoints fabricated from recipes."""

import json
import os
import pickle
import runpy
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from torch import Tensor, nn

from hdetr_d2.checkpoint.class_heads import Scoring
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS, coco_class_names
from hdetr_d2.checkpoint.names.deformable_detr import CODES, AuthorsLayout, to_authors
from hdetr_d2.model_zoo import get_config
from tests.modeling.family import config_of

TOOL = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"
CONFIG = "h_deformable_detr/h_deformable_detr_r50_12ep.py"
HEAD = "transformer.heads.class_embed.5.weight"
ENCODER_HEAD = "transformer.heads.encoder_class_embed.weight"


class Done(NamedTuple):
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``convert(*arguments)`` runs the tool as a program, without a process of its own."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TOOL), run_name="__main__")
        return Done(ended.value.code, *capsys.readouterr())

    return run


def load(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["model"]


def state_of_recipe(num_classes: int) -> dict[str, Tensor]:
    config = get_config(CONFIG)
    config.model.num_classes = num_classes
    return instantiate(config.model).state_dict()


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint as the authors save it, with 91 classes, and the same in our names."""
    state = state_of_recipe(91)
    theirs = to_authors(state, layout=AuthorsLayout(num_layers=6, two_stage=True, refine=True))
    assert len(theirs) == 631
    # Their checkpoints hold the command line, too, which is no tensor.
    torch.save({"model": theirs, "epoch": 11, "args": Namespace(lr=2e-4)}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state


def test_a_checkpoint_as_the_authors_save_it_becomes_one_that_fits_the_recipe(
    convert: Callable[..., Done], published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    source, state = published
    done = convert(source, tmp_path / "ours.pth", "--from", "hdetr", "--classes", "coco", "--config-file", CONFIG)
    assert done.returncode == 0, done.stderr
    ours = load(tmp_path / "ours.pth")
    assert ours[HEAD].shape == (80, 256)
    assert torch.equal(ours[HEAD][0], state[HEAD][1])
    assert torch.equal(ours[ENCODER_HEAD][0], state[ENCODER_HEAD][0])


def test_fine_tuning_takes_rows_along_by_name_and_says_what_became_of_each(
    convert: Callable[..., Done], published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    source, state = published
    names = [{"id": 7, "name": "Zebra"}, {"id": 3, "name": "red cell"}, {"id": 9, "name": "dog"}]
    image = {"id": 1, "file_name": "1.jpg", "height": 10, "width": 10}
    box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    dataset = {"images": [image], "annotations": [box], "categories": names}
    (tmp_path / "train.json").write_text(json.dumps(dataset))
    arguments = ["--from", "hdetr", "--classes", "coco", "--source-names", "coco"]
    done = convert(source, tmp_path / "ours.pth", *arguments, "--target-json", tmp_path / "train.json")
    assert done.returncode == 0, done.stderr
    ours = load(tmp_path / "ours.pth")
    targets = ["red cell", "Zebra", "dog"]  # the data part orders classes by their ids
    row = {name: COCO_CATEGORY_IDS[i] for i, name in enumerate(coco_class_names())}
    assert torch.equal(ours[HEAD][targets.index("Zebra")], state[HEAD][row["zebra"]])
    assert torch.equal(ours[HEAD][targets.index("dog")], state[HEAD][row["dog"]])
    assert not (ours[HEAD][targets.index("red cell")] == state[HEAD]).any()
    assert torch.equal(ours[ENCODER_HEAD][0], state[ENCODER_HEAD][0])
    lines = done.stdout.splitlines()
    assert sum(line.startswith("| unused") for line in lines) == 78
    for words in (("kept", "Zebra", "-> 1"), ("new", "red cell", "row 0"), ("resized", HEAD, "(3, 256)")):
        assert any(all(word in line for word in words) for line in lines), words


def test_our_checkpoint_goes_to_detrex_and_comes_back(convert: Callable[..., Done], tmp_path: Path) -> None:
    state = state_of_recipe(80)
    torch.save({"model": state, "iteration": 5}, tmp_path / "ours.pth")
    there = convert(tmp_path / "ours.pth", tmp_path / "detrex.pth", "--from", "hdetr_d2", "--to", "detrex")
    assert there.returncode == 0, there.stderr
    expected = CODES["detrex"].to_theirs(state)
    written = load(tmp_path / "detrex.pth")
    assert written.keys() == expected.keys()
    again = convert(tmp_path / "detrex.pth", tmp_path / "back.pth", "--from", "detrex", "--config-file", CONFIG)
    assert again.returncode == 0, again.stderr
    back = load(tmp_path / "back.pth")
    assert back.keys() == state.keys()
    assert [key for key in state if not torch.equal(state[key], back[key])] == []


def test_our_80_classes_become_the_authors_91_rows_and_come_back(convert: Callable[..., Done], tmp_path: Path) -> None:
    state = state_of_recipe(80)
    torch.save({"model": state}, tmp_path / "ours.pth")
    there = convert(
        tmp_path / "ours.pth", tmp_path / "a.pth", "--from", "hdetr_d2", "--to", "hdetr", "--classes", "coco"
    )
    assert there.returncode == 0, there.stderr
    theirs = load(tmp_path / "a.pth")
    assert theirs["class_embed.0.weight"].shape == theirs["class_embed.6.weight"].shape == (91, 256)
    assert torch.equal(theirs["class_embed.6.bias"][0], state["transformer.heads.encoder_class_embed.bias"][0])
    again = convert(tmp_path / "a.pth", tmp_path / "back.pth", "--from", "hdetr", "--classes", "coco")
    assert again.returncode == 0, again.stderr
    back = load(tmp_path / "back.pth")
    assert [key for key in state if not torch.equal(state[key], back[key])] == []


def test_torchvisions_resnet_becomes_the_backbone_of_the_recipe(convert: Callable[..., Done], tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    done = convert(tmp_path / "resnet50.pth", tmp_path / "r50.pth", "--from", "torchvision", "--config-file", CONFIG)
    assert done.returncode == 0, done.stderr
    assert "fc.weight" in done.stdout
    assert all(key.startswith("backbone.") for key in load(tmp_path / "r50.pth"))


def test_a_result_that_does_not_fit_the_config_is_listed_and_gives_status_one(
    convert: Callable[..., Done], tmp_path: Path
) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    done = convert(tmp_path / "resnet18.pth", tmp_path / "r18.pth", "--from", "torchvision", "--config-file", CONFIG)
    assert done.returncode == 1
    assert "not in the checkpoint: backbone.res2.0.conv3.weight" in done.stderr
    assert "other shape: backbone.res2.0.conv1.weight" in done.stderr


class Hostile:
    """Writes a file when a pickle of it is read in the ordinary way."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.witness}",)


def save_unusable(kind: str, folder: Path) -> Path:
    """A file that no checkpoint can be made of."""
    path = folder / f"source{'.pkl' if kind == 'hostile pickle' else '.pth'}"
    if kind == "hostile":
        torch.save({"model": {"class_embed.0.weight": torch.zeros(2)}, "args": Hostile(folder / "witness")}, path)
    elif kind == "hostile pickle":
        path.write_bytes(pickle.dumps({"model": {}, "extra": Hostile(folder / "witness")}))
    elif kind == "a module":
        torch.save({"model": nn.Linear(2, 2)}, path)
    elif kind == "cut short":
        torch.save({"model": {"class_embed.0.weight": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "another project's":
        torch.save({"model": {"fc.weight": torch.zeros(2)}}, path)
    elif kind == "no tensors":
        torch.save({"model": {"class_embed.0.weight": "text"}}, path)
    elif kind == "a folder":
        path.mkdir()
    return path


UNUSABLE = [
    "hostile",
    "hostile pickle",
    "a module",
    "cut short",
    "another project's",
    "no tensors",
    "a folder",
    "absent",
]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_gives_an_error_by_name_and_status_two_and_writes_nothing(
    convert: Callable[..., Done], tmp_path: Path, kind: str
) -> None:
    source = save_unusable(kind, tmp_path)
    before = sorted(tmp_path.iterdir())
    done = convert(source, tmp_path / "ours.pth", "--from", "hdetr")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert source.name in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("names", ["absent", "not json", "[1, 2]"])
def test_unusable_names_give_status_two_and_nothing_is_written(
    convert: Callable[..., Done], published: tuple[Path, dict[str, Tensor]], tmp_path: Path, names: str
) -> None:
    if names != "absent":
        (tmp_path / "names.json").write_text(names)
    arguments = ["--from", "hdetr", "--classes", "coco", "--source-names", "coco"]
    done = convert(published[0], tmp_path / "ours.pth", *arguments, "--target-json", tmp_path / "names.json")
    assert done.returncode == 2
    assert "names.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ours.pth").exists()


def test_an_output_that_cannot_be_written_gives_status_two(
    convert: Callable[..., Done], published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    done = convert(published[0], tmp_path / "no_folder" / "ours.pth", "--from", "hdetr")
    assert done.returncode == 2
    assert "no_folder" in done.stderr
    assert "Traceback" not in done.stderr


def tiny(name: str, folder: Path, *, num_classes: int = 80, record: bool = False) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint of a tiny model without its backbone, with what it says of its heads or without."""
    config = config_of(name)
    config.num_classes = num_classes
    model = instantiate(config)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("backbone.")}
    torch.save(
        {"model": state} | ({"class_heads": Scoring.of_model(model).record()} if record else {}), folder / "w.pth"
    )
    return folder / "w.pth", state


MINE = ["person", "cat", "my own thing"]


@pytest.mark.parametrize("name", ["detr", "dn_detr", "dino", "mr_detr", "rtdetr"])
def test_our_own_checkpoint_of_any_model_is_fine_tuned_by_name(
    convert: Callable[..., Done], tmp_path: Path, name: str
) -> None:
    source, state = tiny(name, tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps(MINE))
    arguments = ["--from", "hdetr_d2", "--source-names", "coco", "--target-json", tmp_path / "mine.json"]
    done = convert(source, tmp_path / "start.pth", *arguments)
    assert done.returncode == 0, done.stderr
    new = load(tmp_path / "start.pth")
    expected = config_of(name)
    expected.num_classes = 3
    shapes = {key: value.shape for key, value in instantiate(expected).state_dict().items()}
    assert [key for key, value in new.items() if value.shape != shapes[key]] == []
    head = "transformer.heads.class_embed.0.weight"
    assert torch.equal(new[head][1], state[head][coco_class_names().index("cat")])
    if name == "detr":
        assert torch.equal(new[head][3], state[head][80])
    written = torch.load(tmp_path / "start.pth", weights_only=True)
    assert written["class_heads"]["no_object"] == (name == "detr")


@pytest.mark.parametrize("name", ["detr", "conditional_detr", "dn_detr", "dino", "ms_detr", "mr_detr", "rtdetr"])
def test_our_80_classes_become_91_rows_of_every_model_and_come_back(
    convert: Callable[..., Done], tmp_path: Path, name: str
) -> None:
    source, state = tiny(name, tmp_path)
    there = convert(source, tmp_path / "theirs.pth", "--from", "hdetr_d2", "--to", name, "--classes", "coco")
    assert there.returncode == 0, there.stderr
    tail = {key: len(value) - 80 for key, value in state.items() if "label_embed" in key}
    theirs = load(tmp_path / "theirs.pth")
    labels = [value for key, value in theirs.items() if "label_enc" in key or "denoising_class_embed" in key]
    assert [len(value) for value in labels] == [91 + rest for rest in tail.values()]
    back = convert(tmp_path / "theirs.pth", tmp_path / "back.pth", "--from", name, "--classes", "coco")
    assert back.returncode == 0, back.stderr
    again = load(tmp_path / "back.pth")
    assert [key for key in state if key in again and not torch.equal(again[key], state[key])] == []
    assert {key for key in state if key not in again and not key.endswith("num_batches_tracked")} == set()


def test_what_a_checkpoint_says_of_its_heads_comes_before_what_its_names_suggest(
    convert: Callable[..., Done], tmp_path: Path
) -> None:
    source, state = tiny("conditional_detr", tmp_path, num_classes=81)  # 80 classes and "no object"
    (tmp_path / "mine.json").write_text(json.dumps(MINE))
    arguments = ["--from", "hdetr_d2", "--source-names", "coco", "--target-json", tmp_path / "mine.json"]
    refused = convert(source, tmp_path / "start.pth", *arguments)
    assert refused.returncode == 2
    assert "81 rows, but 80 source classes" in refused.stderr
    assert not (tmp_path / "start.pth").exists()
    torch.save({"model": state, "class_heads": {"no_object": True, "objectness": False}}, source)
    assert convert(source, tmp_path / "start.pth", *arguments).returncode == 0
    head = "transformer.heads.class_embed.0.bias"
    assert torch.equal(load(tmp_path / "start.pth")[head][3], state[head][80])

"""Models of the zoo, new and with a fabricated file of the authors."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2 import model_zoo
from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS
from hdetr_d2.checkpoint.names.deformable_detr import AuthorsLayout, to_authors
from hdetr_d2.model_zoo import trained

NAME = "h_deformable_detr_r50_12ep"
FILE = model_zoo.entries()[NAME].weights.file


def small_config(name: str) -> Any:
    """The recipe with one encoder and two decoder layers, few queries and an 18-layer ResNet."""
    config = model_zoo.get_config(name)
    config.model.backbone.stages.pop("stride_in_1x1")
    config.model.backbone.stages.depth = 18
    config.model.neck.in_channels = [128, 256, 512]
    config.model.transformer.encoder.update(num_layers=1)
    config.model.transformer.encoder.layer.hidden_dim = 32
    config.model.transformer.decoder.num_layers = 2
    config.model.transformer.query_source.num_queries = 20
    config.model.supervision.num_queries = 30
    return config


@pytest.fixture(autouse=True)
def small_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trained, "get_config", small_config)
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "cache"))


def write_theirs(path: Path, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A file with the authors' names and 91 classes; what it holds."""
    config = small_config(NAME)
    config.dataset.num_classes = 91
    state = instantiate(config.model).state_dict()
    theirs = to_authors(state, layout=AuthorsLayout(num_layers=2, two_stage=True, refine=True))
    for key, value in changes.items():
        if value is None:
            del theirs[key]
        else:
            theirs[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": theirs, "epoch": 11}, path)
    return theirs


def test_an_untrained_model_of_a_recipe_for_lvis_is_for_its_classes() -> None:
    with torch.device("meta"):
        model = model_zoo.get("h_deformable_detr_lvis_r50_24ep")
    assert model.num_classes == model.transformer.heads.class_embed[0].out_features == 1203
    assert model.transformer.heads.encoder_class_embed.out_features == 1


def test_an_untrained_model_is_for_cocos_classes() -> None:
    with torch.device("meta"):
        model = model_zoo.get(NAME)
    assert model.num_classes == model.transformer.heads.class_embed[0].weight.shape[0] == 80
    assert model.training


@pytest.mark.parametrize("place", ["cache", "given"])
def test_a_trained_model_has_the_files_weights_with_the_rows_of_cocos_classes(place: str, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "weights" / FILE if place == "cache" else tmp_path / "mine.pth"
    theirs = write_theirs(path)
    torch.manual_seed(7)  # what is drawn is not what the file has
    model = model_zoo.get(NAME, trained=True, weights=None if place == "cache" else path)
    state = model.state_dict()
    assert torch.equal(state["backbone.stem.conv1.weight"], theirs["backbone.0.body.conv1.weight"])
    assert torch.equal(state["neck.levels.3.0.weight"], theirs["input_proj.3.0.weight"])
    head = theirs["class_embed.1.weight"]
    assert torch.equal(state["transformer.heads.class_embed.1.weight"], head[torch.tensor(COCO_CATEGORY_IDS)])
    content = state["transformer.query_source.content.one2one"]
    assert torch.equal(content, theirs["query_embed.weight"][:20])


def test_a_missing_file_is_named_with_its_address_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(model_zoo.MissingWeightsError) as caught:
        model_zoo.get(NAME, trained=True)
    message = str(caught.value)
    assert f"get {FILE} from {model_zoo.entries()[NAME].weights.url} and put it at " in message
    assert str(tmp_path / "cache" / "weights" / FILE) in message
    assert not (tmp_path / "cache").exists()  # nothing was fetched or made
    with pytest.raises(model_zoo.MissingWeightsError, match=r"nowhere.pth do not exist"):
        model_zoo.get(NAME, trained=True, weights="nowhere.pth")


def test_weights_are_found_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_zoo.weights_folder() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("HDETR_D2_CACHE")
    assert model_zoo.weights_folder() == Path.home() / ".cache" / "hdetr_d2" / "weights"


def test_a_file_of_another_model_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    write_theirs(path, **{"transformer.level_embed": torch.zeros(3, 256), "input_proj.0.0.bias": None})
    with pytest.raises(CheckpointError, match="2 tensors differ") as caught:
        model_zoo.get(NAME, trained=True, weights=path)
    assert "neck.levels.0.0.bias is not in the file" in str(caught.value)
    assert "transformer.level_embed is (3, 256) in the file and (4, 256) in the model" in str(caught.value)


def test_a_file_that_is_not_the_authors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pth"
    torch.save({"model": {"some.weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"foreign.pth: .* names of the authors' Deformable-DETR code"):
        model_zoo.get(NAME, trained=True, weights=path)


def test_a_known_checksum_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache" / "weights" / FILE
    write_theirs(path)
    entry = model_zoo.entries()[NAME]

    def knowing(sha256: str) -> None:
        known = replace(entry, weights=replace(entry.weights, sha256=sha256))
        monkeypatch.setattr(trained, "entries", lambda: {NAME: known})

    knowing(hashlib.sha256(path.read_bytes()).hexdigest())
    model_zoo.get(NAME, trained=True)
    knowing("0" * 64)
    with pytest.raises(CheckpointError, match=f"its sha256 is .*, not the published file's {'0' * 64}"):
        model_zoo.get(NAME, trained=True)


def test_what_cannot_be_had_is_refused_with_what_can() -> None:
    with pytest.raises(ValueError, match="no published model 'nothing'; there is deformable_detr_single_scale"):
        model_zoo.get("nothing")
    with pytest.raises(ValueError, match="no weights of 'hybrid_epoch_r50_12ep' were released; .*" + NAME):
        model_zoo.get("hybrid_epoch_r50_12ep", trained=True)
    with pytest.raises(ValueError, match="trained is False"):
        model_zoo.get(NAME, weights="some.pth")

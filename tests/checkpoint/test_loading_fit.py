"""Which weights a model takes: parts in training, the whole in evaluation, and none of another project."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.checkpoint import CheckpointError, SafeCheckpointer
from hdetr_d2.checkpoint.convert import FAMILY, from_ours, recognised
from hdetr_d2.checkpoint.loading import _TRAINING_ONLY
from hdetr_d2.modeling import DETR
from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, config_of

MODELS = [*ONE_TO_ONE, *ONE_TO_MANY]


def build(name: str, *, num_classes: int = 5, seed: int = 0) -> DETR:
    config = config_of(name)
    config.num_classes = num_classes
    torch.manual_seed(seed)
    model: DETR = instantiate(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def load(model: DETR, state: Mapping[str, Tensor], folder: Path, *, whole: bool = False) -> SafeCheckpointer:
    torch.save({"model": dict(state)}, folder / "weights.pth")
    checkpointer = SafeCheckpointer(model, whole=whole)
    checkpointer.load(str(folder / "weights.pth"))
    return checkpointer


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_weights_without_what_is_for_training_only_are_evaluated_as_with_it(
    name: str, draw_batch: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    model, other = build(name).eval(), build(name, seed=1).eval()
    needed = model.transformer.denoising is not None and model.transformer.denoising.unknown_content
    state = {
        key: value
        for key, value in model.state_dict().items()
        if not _TRAINING_ONLY.match(key) or (needed and ".denoising." in key)
    }
    load(other, state, tmp_path, whole=True)
    batch = draw_batch((64, 96, 1))
    ours, theirs = (m(batch)[0]["instances"] for m in (model, other))
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)


@pytest.mark.parametrize("name", ["detr", "dn_detr", "dino", "rtdetr", "h_deformable_detr"])
def test_class_heads_of_another_size_stop_evaluation_and_not_training(name: str, tmp_path: Path) -> None:
    state = build(name, num_classes=4).state_dict()
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = (5, 6) if name == "detr" else (4, 5)
    with pytest.raises(CheckpointError, match=rf"{rows[0]} rows in the file and {rows[1]} in the model.*num_classes"):
        load(model, state, tmp_path, whole=True)
    assert [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])] == []
    report = load(model, state, tmp_path).report
    assert report is not None
    assert report.mismatched
    assert not report.new
    assert not report.unused


@pytest.mark.parametrize("missing", ["transformer.decoder.layers.2.", "neck.", "backbone.", "transformer.encoder."])
def test_a_part_that_is_missing_or_of_another_shape_stops_evaluation_and_not_training(
    missing: str, tmp_path: Path
) -> None:
    state = build("deformable_detr").state_dict()
    part = {key: value for key, value in state.items() if not key.startswith(missing)}
    with pytest.raises(CheckpointError, match=rf"not in the file \({missing}"):
        load(build("deformable_detr"), part, tmp_path, whole=True)
    assert load(build("deformable_detr"), part, tmp_path).report is not None
    other = {key: value[:-1] if key.startswith(missing) else value for key, value in state.items()}
    with pytest.raises(CheckpointError, match=rf"another shape than in the model, such as {missing}"):
        load(build("deformable_detr"), other, tmp_path, whole=True)


@pytest.mark.parametrize(("theirs", "ours"), [("detr", "dino"), ("dab_detr", "conditional_detr"), ("dino", "rtdetr")])
def test_another_model_of_the_family_starts_a_training_and_is_not_evaluated(
    theirs: str, ours: str, tmp_path: Path
) -> None:
    state = build(theirs).state_dict()
    with pytest.raises(CheckpointError, match="weights"):
        load(build(ours), state, tmp_path, whole=True)
    report = load(build(ours), state, tmp_path).report
    assert report is not None
    assert report.kept
    assert report.new


def test_a_backbone_starts_a_training_and_is_not_evaluated(tmp_path: Path) -> None:
    model = build("deformable_detr")
    state = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
    report = load(build("deformable_detr"), state, tmp_path).report
    assert report is not None
    assert set(report.kept) == state.keys()
    with pytest.raises(CheckpointError, match="are not in the file"):
        load(build("deformable_detr"), state, tmp_path, whole=True)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("project", [*FAMILY, "hdetr", "mmdet", "detrex", "transformers", "rtdetr"])
def test_names_of_another_project_are_refused_with_the_command_that_converts_them(
    project: str, whole: bool, tmp_path: Path
) -> None:
    name = {"hdetr": "h_deformable_detr", "mmdet": "detr", "detrex": "dino", "transformers": "detr"}.get(
        project, project
    )
    config = config_of(name)
    if project == "detrex":
        config.transformer.heads.shared = False
    model: DETR = instantiate(config)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("backbone.")}
    written = from_ours(project, state)
    theirs = written.get("model", written)
    with pytest.raises(CheckpointError, match=r"weights\.pth: .*hdetr-d2 convert .* --from ") as caught:
        load(model, theirs, tmp_path, whole=whole)
    found = str(caught.value).rsplit(" ", 1)[1]
    same_names = {"dn_detr": "dab_detr", "dn_deformable_detr": "dab_deformable_detr"}
    assert found == same_names.get(project, project)


def test_a_classification_network_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    state = timm.create_model("resnet18").state_dict()
    with pytest.raises(CheckpointError, match="--from torchvision"):
        load(build("deformable_detr"), state, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_our_own_names_are_taken_for_no_other_project(name: str) -> None:
    state = build(name).state_dict()
    assert recognised(state) is None
    assert recognised({key: value for key, value in state.items() if key.startswith("backbone.")}) is None


def test_weights_that_share_no_tensor_stop_a_training_too(tmp_path: Path) -> None:
    model = build("rtdetr")  # whose BatchNorms PyTorch would count as loaded
    with pytest.raises(CheckpointError, match=r"none of its 2 tensors is of this model.*a.weight, b.weight"):
        load(model, {"a.weight": torch.zeros(2), "b.weight": torch.zeros(3)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"none of its 1 tensors has the shape .*class_embed\.0\.bias"):
        load(model, {"transformer.heads.class_embed.0.bias": torch.zeros(9)}, tmp_path)


def test_names_with_a_prefix_of_lightning_are_taken(tmp_path: Path) -> None:
    model = build("detr")
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    report = load(build("detr", seed=1), state, tmp_path, whole=True).report
    assert report is not None
    assert report.complete


def test_a_checkpoint_carries_how_its_model_reads_its_heads(tmp_path: Path) -> None:
    path = SafeCheckpointer(build("detr"), str(tmp_path)).save("model_final")
    assert torch.load(path, weights_only=True)["class_heads"] == {"no_object": True, "objectness": False}

"""mmdetection's names: its arithmetic beside ours with the same weights, and there and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor
from torch.nn import functional as F

from hdetr_d2.checkpoint.class_heads import Scoring
from hdetr_d2.checkpoint.convert import from_ours, recognised, scoring_of, to_ours
from hdetr_d2.checkpoint.names.mmdet import _from_official, _to_official
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import PRIMARY
from tests.modeling.family import build as build_family

from . import mmdet_models
from .mmdet_models import CLASSES, DECODER_LAYERS, DIM, ENCODER_LAYERS, HEADS, HIDDEN, QUERIES
from .test_deformable_detr import assert_equal

KINDS = {
    "detr": "detr",
    "conditional_detr": "conditional_detr",
    "dab_detr": "dab_detr",
    "dab_patterns": "dab_detr",
    "plain": "deformable_detr",
    "refined": "deformable_detr",
    "two_stage": "deformable_detr_two_stage",
    "dino": "dino",
}


def build_ours(kind: str) -> DETR:
    model = get_config(f"common/models/{KINDS[kind]}.py").model
    transformer = model.transformer
    transformer.embed_dim = DIM
    transformer.position_embedding.num_features = DIM // 2
    transformer.encoder.num_layers = ENCODER_LAYERS
    transformer.encoder.layer.update(num_heads=HEADS, hidden_dim=HIDDEN)
    transformer.decoder.num_layers = DECODER_LAYERS
    transformer.query_source.num_queries = QUERIES
    model.num_classes = CLASSES
    model.backbone.stages.pop("stride_in_1x1")
    model.backbone.stages.depth = 18
    model.neck.in_channels = [channels // 4 for channels in model.neck.in_channels]
    if kind == "dab_patterns":
        transformer.query_source.num_patterns = 2
    if kind == "refined":
        transformer.decoder.refine = True
        transformer.heads.shared = False
    if kind == "dino":
        transformer.heads.shared = False
        transformer.denoising.unknown_row = False
    return instantiate(model).eval()


@torch.no_grad()
def outputs(model: Any, pixels: Tensor) -> Tensor:
    size = tuple(pixels.shape[-2:])
    predictions, _ = model.predict(model.backbone(pixels), size, [size] * len(pixels))
    return torch.cat([predictions[PRIMARY].logits[-1], predictions[PRIMARY].boxes[-1]], dim=-1)


def in_order(rows: Tensor) -> Tensor:
    """Queries by their first number, whatever the order in which near ties of proposals were taken."""
    return rows.gather(1, rows[..., :1].argsort(1).expand_as(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_model_gives_the_outputs_of_mmdetection(kind: str) -> None:
    theirs, ours = mmdet_models.build(kind), build_ours(kind)
    state = theirs.state_dict()
    ours.load_state_dict(to_ours("mmdet", {}, state).state)
    pixels = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        expected = torch.cat(theirs(pixels), dim=-1)
    assert expected[..., :-4].std() > 0.05
    assert expected[..., -4:].std() > 0.005
    torch.testing.assert_close(in_order(outputs(ours, pixels)), in_order(expected), atol=3e-4, rtol=0)
    back = from_ours("mmdet", ours.state_dict())["model"]
    theirs_only = [key for key in state if not key.endswith("num_batches_tracked")]
    assert back.keys() == set(theirs_only)
    assert [key for key in theirs_only if not torch.equal(back[key], state[key])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_dict_says_which_model_it_is_of(kind: str) -> None:
    state = mmdet_models.build(kind).state_dict()
    assert recognised(state) == "mmdet"
    assert scoring_of("mmdet", {}, state) == Scoring(no_object=kind == "detr", objectness=kind == "two_stage")


def test_a_bias_before_the_necks_norm_is_kept_where_there_is_one() -> None:
    ours = build_ours("plain")
    with torch.no_grad():
        ours.neck.levels[0][0].bias.fill_(0.5)
    state = ours.state_dict()
    theirs = from_ours("mmdet", state)["model"]
    assert torch.equal(theirs["neck.convs.0.conv.bias"], torch.full((DIM,), 0.5))
    assert_equal(to_ours("mmdet", {}, theirs).state, state)


@pytest.mark.parametrize("name", ["h_deformable_detr", "dino", "mr_detr", "rtdetr"])
def test_what_mmdetection_has_no_place_for_is_refused(name: str) -> None:
    state = {key: value for key, value in build_family(name).state_dict().items() if not key.startswith("backbone.")}
    with pytest.raises(ValueError, match=r"mmdet"):
        from_ours("mmdet", state)


@pytest.mark.parametrize(
    "key", ["bbox_head.unknown.weight", "decoder.layers.0.norms.7.weight", "backbone.layer9.0.conv1.weight"]
)
def test_a_key_that_is_not_theirs_is_refused_by_name(key: str) -> None:
    state = {**mmdet_models.build("detr").state_dict(), key: torch.zeros(1)}
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        to_ours("mmdet", {}, state)


def test_what_older_files_hold_twice_is_left_out() -> None:
    state = mmdet_models.build("dab_detr").state_dict()
    twice = {
        key.replace("layers.0.1.", "activate."): value for key, value in state.items() if ".ffn.layers.0.1." in key
    }
    assert twice
    assert_equal(to_ours("mmdet", {}, {**state, **twice}).state, to_ours("mmdet", {}, state).state)


def test_merged_patches_come_in_the_official_order() -> None:
    image = torch.randn(1, 6, 4, 4)
    unfolded = F.unfold(image, 2, stride=2).transpose(1, 2)  # (1, 4, 4 C) as mmdetection has it
    maps = image.permute(0, 2, 3, 1)
    corners = [maps[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    official = torch.cat(corners, dim=-1).flatten(1, 2)
    weight = torch.randn(5, 24)
    torch.testing.assert_close(unfolded @ weight.T, official @ _to_official(weight).T)
    assert torch.equal(_from_official(_to_official(weight)), weight)

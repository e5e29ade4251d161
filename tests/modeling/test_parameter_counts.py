"""Sizes of the configured models against the published ones."""

from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from torch import nn

from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import TimmBackbone

COCO_ROWS = 91  # the authors number classes by category id


def model_config(recipe: str) -> Any:
    config = get_config(recipe)
    config.dataset.num_classes = COCO_ROWS
    return config.model


def build_without_memory(model: Any) -> nn.Module:
    """On the meta device: nothing is allocated or drawn."""
    with torch.device("meta"):
        return instantiate(model)


def count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        ("deformable_detr/deformable_detr_r50_50ep.py", 40_069_665),
        ("deformable_detr/deformable_detr_refine_r50_50ep.py", 40_849_660),
        ("deformable_detr/deformable_detr_two_stage_r50_50ep.py", 41_181_529),
        ("h_deformable_detr/h_deformable_detr_r50_12ep.py", 47_946_073),
        ("h_deformable_detr/h_deformable_detr_r50_36ep.py", 47_946_073),
    ],
)
def test_a_recipe_has_the_published_number_of_parameters(recipe: str, published: int) -> None:
    assert count(build_without_memory(model_config(recipe)).parameters()) == published


def test_parameters_are_trained_and_grouped_as_published() -> None:
    model = build_without_memory(model_config("h_deformable_detr/h_deformable_detr_r50_12ep.py"))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 47_723_673
    assert sum(n for name, n in trained.items() if name.startswith("backbone.")) == 23_232_512
    assert sum(n for name, n in trained.items() if "sampling_offsets" in name) == 789_504


def test_deformable_detr_plus_plus_is_h_deformable_detr_without_the_branch_content() -> None:
    recipe = "deformable_detr/deformable_detr_plus_plus_r50_12ep.py"
    assert count(build_without_memory(model_config(recipe)).parameters()) == 47_946_073 - 1500 * 256


@pytest.mark.parametrize(
    ("name", "channels", "published"),
    [
        ("swin_tiny_patch4_window7_224", [192, 384, 768], 48_489_107),
        ("swin_small_patch4_window7_224", [192, 384, 768], 69_807_011),
        ("swin_large_patch4_window7_224", [384, 768, 1536], 218_079_917),
    ],
)
def test_swin_models_have_the_published_number_of_parameters(name: str, channels: list[int], published: int) -> None:
    model = model_config("h_deformable_detr/h_deformable_detr_r50_12ep.py")
    model.backbone = L(TimmBackbone)(name=name, out_features=["res3", "res4", "res5"], output_norm=True)
    model.neck.in_channels = channels
    assert count(build_without_memory(model).parameters()) == published


def test_a_narrow_proposal_head_saves_all_classes_but_one() -> None:
    model = model_config("h_deformable_detr/h_deformable_detr_r50_12ep.py")
    model.transformer.heads.encoder_classes = 1
    assert count(build_without_memory(model).parameters()) == 47_946_073 - 90 * 257


def test_the_state_has_the_published_entries_less_the_aliases_of_the_heads() -> None:
    # 631 entries, of which 56 are the heads a second time; our query table is two, one a group.
    model = build_without_memory(model_config("h_deformable_detr/h_deformable_detr_r50_12ep.py"))
    assert len(model.state_dict()) == 631 - 56 + 1

"""Sizes of the configured models against the published ones."""

from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from torch import nn

from hdetr_d2.layers.conv import ConvNorm
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import TimmBackbone, deploy

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


def family_size(name: str, **changes: Any) -> int:
    """Parameters of a model of ``configs/common/models``; ``changes`` are of its query source."""
    model = get_config(f"common/models/{name}.py").model
    model.num_classes = COCO_ROWS
    model.transformer.query_source.update(changes)
    return count(build_without_memory(model).parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("detr", 41_524_768),
        ("dab_detr", 43_671_517),
        ("dab_deformable_detr", 47_405_994),
        ("dn_detr", 43_694_977),
        ("dn_deformable_detr", 47_429_154),
        ("dino", 46_893_182),
        ("dino_5scale", 47_255_806),
        ("relation_detr", 48_869_312),
    ],
)
def test_a_model_of_the_family_has_the_number_of_parameters_of_its_authors(name: str, published: int) -> None:
    assert family_size(name) == published


def test_mr_detr_adds_instructions_norms_and_feed_forward_parts_and_a_ranking() -> None:
    in_layers = 6 * (10 * 2 * 256 + 2 * 256 + 1_050_880)
    ranking = COCO_ROWS * 257 + 2 * 256 * 257 + 4 * 257  # one more class head and box head of the encoder
    plus_plus = family_size("deformable_detr_plus_plus")
    assert family_size("mr_detr") == plus_plus + in_layers + ranking
    # On DINO there is a label table besides, without a row for unknown classes.
    plus_plus = family_size("deformable_detr_plus_plus", num_queries=900)
    assert family_size("mr_detr_dino") == plus_plus + in_layers + ranking + COCO_ROWS * 256


def test_ms_detr_adds_a_feed_forward_part_and_a_norm_in_each_layer() -> None:
    assert family_size("ms_detr") == family_size("deformable_detr_plus_plus") + 6 * (1_050_880 + 512)


def test_a_pattern_is_one_content() -> None:
    assert family_size("dab_detr", num_patterns=3) == family_size("dab_detr") + 3 * 256


FINE = {  # as the authors train them, and re-parameterised
    "dfine_hgnetv2_n_160ep": (3_782_693, 3_753_799),
    "dfine_hgnetv2_s_132ep": (10_321_877, 10_237_491),
    "dfine_hgnetv2_m_132ep": (19_590_064, 19_248_189),
    "dfine_hgnetv2_l_80ep": (31_244_152, 30_724_195),
    "dfine_hgnetv2_x_80ep": (62_621_560, 61_601_635),
}


@pytest.mark.parametrize("name", FINE)
def test_dfine_has_the_number_of_parameters_of_its_authors(name: str) -> None:
    config = get_config(name)
    config.dataset.num_classes = 80
    model: Any = build_without_memory(config.model)
    trained, deployed = FINE[name]
    assert count(model.parameters()) == trained
    labels = count(model.transformer.denoising.parameters())  # which the authors keep
    deploy(model)
    for key, part in model.neck.named_modules():
        if isinstance(part, ConvNorm) and "input_proj" not in key:
            part.fuse()
    assert count(model.parameters()) + labels == deployed


@pytest.mark.parametrize("size", ["n_160ep", "s_132ep", "m_102ep", "l_58ep", "x_58ep"])
def test_deim_on_dfine_trains_all_norms_besides(size: str) -> None:
    config, fine = get_config(f"deim_dfine_hgnetv2_{size}"), {name.split("_")[2]: n for name, (n, _) in FINE.items()}
    config.dataset.num_classes = 80
    model = build_without_memory(config.model)
    norms = {"l": 45_696, "x": 93_920}  # of the backbone, which D-FINE freezes
    assert count(model.parameters()) == fine[size[0]] + norms.get(size[0], 0)

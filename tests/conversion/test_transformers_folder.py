"""Models of the pip package transformers as ours and back: folders that ``from_pretrained`` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment

from hdetr_d2 import Detector
from hdetr_d2.conversion import Conversion, ConversionError, convert
from hdetr_d2.model_zoo.transformers_config import TransformersConfigError, config_of_json
from hdetr_d2.model_zoo.transformers_dfine import SIZES
from hdetr_d2.supervision import PRIMARY

transformers = pytest.importorskip("transformers")

NAMES = ["cat", "dog", "a bird", "tree", "house"]
SMALL = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 12,
    "id2label": dict(enumerate(NAMES)),
}
HGNETV2_B0 = {
    **SIZES["hgnetv2_b0"],
    "hidden_sizes": [64, 256, 512, 1024],
    "out_features": ["stage2", "stage3", "stage4"],
}
TOKENS = 12**2 + 6**2 + 3**2
"""Of an image of SIDE pixels at three levels. All of them become queries, so that no rounding decides which."""
SIDE = 96
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "detr": ("Detr", {"d_model": 32}),
    "conditional": ("ConditionalDetr", {"d_model": 32}),
    "dab": ("DabDetr", {"hidden_size": 32}),
    "dab_patterns": ("DabDetr", {"hidden_size": 32, "num_patterns": 2}),
    "deformable": ("DeformableDetr", {"d_model": 32, "disable_custom_kernels": True}),
    "refined": ("DeformableDetr", {"d_model": 32, "with_box_refine": True, "disable_custom_kernels": True}),
    "two_stage": (
        "DeformableDetr",
        {
            "d_model": 32,
            "with_box_refine": True,
            "two_stage": True,
            "two_stage_num_proposals": TOKENS,
            "num_feature_levels": 3,
            "encoder_n_points": 2,
            "disable_custom_kernels": True,
        },
    ),
    "rt": ("RTDetr", {}),
    "rt_v2": ("RTDetrV2", {"decoder_method": "discrete", "decoder_n_points": 3}),
    "fine": ("DFine", {"d_model": 32, "reg_scale": 8.0, "max_num_bins": 16}),
}


def build_theirs(family: str) -> Any:
    torch.manual_seed(1)
    prefix, options = FAMILIES[family]
    options = {**SMALL, **options}
    if family == "fine":
        options |= {"encoder_hidden_dim": 32, "decoder_in_channels": [32] * 3, "hidden_expansion": 0.5}
        options |= {"depth_mult": 0.34, "encoder_in_channels": [256, 512, 1024]}
        options["backbone_config"] = transformers.HGNetV2Config(**HGNETV2_B0)
    elif family.startswith("rt"):
        options |= {
            "num_queries": TOKENS,
            "d_model": 32,
            "encoder_hidden_dim": 48,
            "decoder_in_channels": [48] * 3,
            "hidden_expansion": 0.5,
        }
        options["encoder_in_channels"] = [128, 256, 512]
        options["backbone_config"] = transformers.RTDetrResNetConfig(
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            downsample_in_bottleneck=False,
            out_features=["stage2", "stage3", "stage4"],
        )
    else:
        indices = (2, 3, 4) if "Deformable" in prefix else (1, 2, 3, 4)
        if options.get("num_feature_levels") == 3:
            indices = (2, 3, 4)
        options["backbone_config"] = transformers.TimmBackboneConfig(
            backbone="resnet18", use_pretrained_backbone=False, out_indices=indices
        )
    model = getattr(transformers, f"{prefix}ForObjectDetection")(
        getattr(transformers, f"{prefix}Config")(**options)
    ).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "points_scale" not in name:
                tensor.add_((0.02 if "backbone" in name else 0.1) * torch.randn_like(tensor))
    return model


@torch.no_grad()
def outputs_of_theirs(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = model(pixel_values=pixels, pixel_mask=torch.ones(len(pixels), *pixels.shape[-2:], dtype=torch.int64))
    return found.logits, found.pred_boxes


@torch.no_grad()
def outputs_of_ours(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    size = tuple(pixels.shape[-2:])
    predictions, _ = model.predict(model.backbone(pixels), size, [size] * len(pixels))
    return predictions[PRIMARY].logits[-1], predictions[PRIMARY].boxes[-1]


def assert_same_queries(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The same queries, in whatever order scores that are nearly equal were ranked."""
    ours, theirs = (torch.cat(each, dim=-1)[0] for each in (found, expected))
    rows, columns = linear_sum_assignment(torch.cdist(ours.double(), theirs.double()))
    torch.testing.assert_close(ours[rows], theirs[columns], atol=5e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_transformers_detects_here_and_goes_back(family: str, tmp_path: Path) -> None:
    theirs = build_theirs(family)
    theirs.save_pretrained(tmp_path / "theirs")
    detector = Detector.load(tmp_path / "theirs", device="cpu")
    assert detector.class_names == tuple(NAMES)
    pixels = torch.randn(1, 3, SIDE, SIDE)
    expected = outputs_of_theirs(theirs, pixels)
    assert expected[0].std() > 0.05
    assert expected[1].std() > 0.005
    assert_same_queries(outputs_of_ours(detector.model, pixels), expected)
    ours = convert(Conversion(source=str(tmp_path / "theirs"), output=tmp_path / "ours.pth"))
    assert ours.num_outputs == len(NAMES) + (family == "detr")
    convert(Conversion(source=str(tmp_path / "ours.pth"), output=tmp_path / "back", target="transformers"))
    again, report = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    derived = ("num_batches_tracked", "points_scale")
    assert [key for key in report["missing_keys"] if not key.endswith(derived)] == []
    assert again.config.id2label == dict(enumerate(NAMES))
    back = outputs_of_theirs(again.eval(), pixels)
    assert_same_queries(back, expected)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "back")
    assert processor.do_rescale
    assert processor.do_normalize == (not family.startswith(("rt", "fine")))


def test_a_file_of_weights_alone_loads_strictly(tmp_path: Path) -> None:
    theirs = build_theirs("two_stage")
    theirs.save_pretrained(tmp_path / "theirs")
    convert(Conversion(source=str(tmp_path / "theirs"), output=tmp_path / "ours.pth"))
    convert(Conversion(source=str(tmp_path / "ours.pth"), output=tmp_path / "w.safetensors", target="transformers"))
    again = type(theirs).from_pretrained(
        None,
        config=theirs.config,
        state_dict=load_file(tmp_path / "w.safetensors"),
    )
    assert [k for k, v in again.state_dict().items() if not torch.equal(v, theirs.state_dict()[k])] == []


def test_what_transformers_cannot_say_is_refused_by_its_key(tmp_path: Path) -> None:
    theirs = build_theirs("two_stage")
    theirs.save_pretrained(tmp_path / "theirs")
    convert(Conversion(source=str(tmp_path / "theirs"), output=tmp_path / "ours.pth"))
    content = torch.load(tmp_path / "ours.pth", weights_only=True)
    text = content["description"]["config"]
    content["description"]["config"] = text.replace("temperature: 10000", "temperature: 20")
    assert content["description"]["config"] != text
    torch.save(content, tmp_path / "ours.pth")
    with pytest.raises(TransformersConfigError, match=r"position_embedding\.temperature is 20"):
        convert(Conversion(source=str(tmp_path / "ours.pth"), output=tmp_path / "back", target="transformers"))
    assert not (tmp_path / "back" / "config.json").exists()


def test_weights_without_a_config_do_not_become_a_folder(tmp_path: Path) -> None:
    theirs = build_theirs("detr")
    theirs.save_pretrained(tmp_path / "theirs")
    convert(Conversion(source=str(tmp_path / "theirs"), output=tmp_path / "ours.pth"))
    bare = torch.load(tmp_path / "ours.pth", weights_only=True)["model"]
    torch.save(bare, tmp_path / "bare.pth")
    with pytest.raises(ConversionError, match=r"config\.json, .* --config"):
        convert(Conversion(source=str(tmp_path / "bare.pth"), output=tmp_path / "back", target="transformers"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "yolos"}, "is a yolos, which is not one of ours"),
        ({}, "is a None"),
        ({"model_type": "detr", "position_embedding_type": "learned"}, "position_embedding_type is 'learned'"),
        ({"model_type": "detr", "backbone": "convnext_tiny"}, r"backbone \(convnext_tiny\) is no ResNet"),
        ({"model_type": "deformable_detr", "two_stage": True}, "two stages without refinement"),
        ({"model_type": "dab-detr", "query_dim": 2}, "query_dim is 2"),
        ({"model_type": "rt_detr", "backbone_config": {"model_type": "hgnet_v2"}}, "backbone .* is none of ours"),
        ({"model_type": "rt_detr", "learn_initial_query": True}, "learn_initial_query is True"),
        ({"model_type": "d_fine", "eval_idx": 2}, "eval_idx is 2"),
        ({"model_type": "d_fine", "backbone_config": {"stem_channels": [3, 8, 8]}}, "backbone .* is none of ours"),
    ],
)
def test_a_config_of_another_model_is_refused_by_what_it_has(content: dict[str, Any], message: str) -> None:
    with pytest.raises(TransformersConfigError, match=message):
        config_of_json(content, "there/config.json")


def test_a_config_of_version_four_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr"}))
    old = {"model_type": "detr", "backbone": "resnet101", "use_timm_backbone": True, "dilation": True, "d_model": 128}
    model = config_of_json(old, "config.json").model
    assert model.backbone.stages.depth == 101
    assert model.backbone.stages._target_.__name__ == "dilated_stages"
    assert (model.transformer.embed_dim, model.transformer.position_embedding.num_features) == (128, 64)
    assert model.transformer.query_source.num_queries == 100

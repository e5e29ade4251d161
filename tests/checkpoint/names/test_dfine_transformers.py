"""The pip package's DFine beside ours, with the same weights and the same pixels: outputs, losses and gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from configs.common.models import dfine_sizes
from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.checkpoint.names.dfine import CODES
from hdetr_d2.model_zoo import get_config
from hdetr_d2.model_zoo.transformers_dfine import fine_json
from hdetr_d2.modeling import DETR
from hdetr_d2.structures import Targets
from hdetr_d2.supervision import PRIMARY
from tests.rankings import calibrate

from .test_rtdetr_transformers import assert_the_same_outputs

transformers = pytest.importorskip("transformers")

CODE = CODES["transformers"]
NUM_LABELS, NUM_QUERIES, LAYERS = 5, 12, 3
VARIANTS: dict[str, dict[str, Any]] = {  # of config.json, in which both are the same model
    "three levels": {"num_feature_levels": 3, "decoder_n_points": [2, 3, 2], "depth_mult": 0.34},
    "two levels": {"num_feature_levels": 2, "decoder_n_points": [2, 3], "reg_scale": 8.0, "max_num_bins": 16},
}
COMMON = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 56,
    "decoder_layers": LAYERS,
    "num_queries": NUM_QUERIES,
    "num_labels": NUM_LABELS,
    "hidden_expansion": 0.5,
    "num_denoising": 0,
}


def build_ours(variant: str) -> DETR:
    options = VARIANTS[variant]
    model = get_config("common/models/dfine.py").model
    model.num_classes = NUM_LABELS
    (dfine_sizes.make_n if options["num_feature_levels"] == 2 else dfine_sizes.make_s)(model)
    hybrid, _ = model.neck.necks
    hybrid.update(out_channels=32, expansion=0.5, depth_mult=options.get("depth_mult", 1.0))
    hybrid.encoder.layer.update(num_heads=4, hidden_dim=40)
    model.transformer.update(embed_dim=32, denoising=None)
    model.transformer.query_source.num_queries = NUM_QUERIES
    model.transformer.decoder.update(num_layers=LAYERS)
    model.transformer.decoder.layer.update(num_heads=4, hidden_dim=56, num_points=options["decoder_n_points"])
    model.transformer.decoder.query_position.hidden_dim = 64
    model.transformer.heads.update(bins=options.get("max_num_bins", 32), reg_scale=options.get("reg_scale", 4.0))
    model.criterion.unite_matches = False
    built: DETR = instantiate(model)
    built.config = model
    return built


def build_theirs(variant: str, ours: DETR) -> Any:
    torch.manual_seed(2)
    backbone = fine_json(ours.config)
    assert backbone is not None
    inner = transformers.HGNetV2Config(**backbone.pop("backbone_config"))
    config = transformers.DFineConfig(backbone_config=inner, **backbone, **COMMON, **VARIANTS[variant])
    model = transformers.DFineForObjectDetection(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not key.endswith(("num_points_scale", ".up", "reg_scale")):
                tensor.add_((0.02 if "backbone" in key else 0.1) * torch.randn_like(tensor))
    calibrate(model, lambda: model(pixel_values=torch.rand(2, 3, 96, 96)))
    return model


def pair(variant: str) -> tuple[DETR, Any]:
    ours = build_ours(variant)
    theirs = build_theirs(variant, ours)
    ours.load_state_dict(CODE.to_ours(theirs.state_dict()), strict=True)
    return ours.eval(), theirs


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_converted_model_gives_the_outputs_of_transformers(variant: str, tmp_path: Path) -> None:
    ours, theirs = pair(variant)
    assert_the_same_outputs(theirs, ours, (96, 96))
    assert_the_same_outputs(theirs, ours, (64, 128))
    theirs.save_pretrained(tmp_path)
    filed, in_memory = CODE.to_ours(load_checkpoint(tmp_path / "model.safetensors")), CODE.to_ours(theirs.state_dict())
    assert filed.keys() == in_memory.keys()
    assert [key for key in filed if not torch.equal(filed[key], in_memory[key])] == []


def test_our_weights_load_into_transformers_and_come_back() -> None:
    ours, theirs = pair("three levels")
    converted = CODE.to_theirs(ours.state_dict())
    loaded, report = type(theirs).from_pretrained(
        None, config=theirs.config, state_dict=converted, output_loading_info=True
    )
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert all(key.endswith(("num_batches_tracked", "num_points_scale")) for key in report["missing_keys"])
    assert_the_same_outputs(loaded.eval(), ours, (64, 96))
    back = CODE.to_ours(converted)
    kept = {key: value for key, value in ours.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert back.keys() == kept.keys()
    assert [key for key in kept if not torch.equal(back[key], kept[key])] == []


def their_losses(theirs: Any, pixels: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
    """Theirs of classes and boxes, by our keys; their pairs of layers and distributions are one layer apart."""
    labels = [{"class_labels": one.labels, "boxes": one.boxes} for one in targets]
    found = theirs(pixel_values=pixels, labels=labels).loss_dict
    places = {"": ""} | {"_aux_0": "_pre", f"_aux_{LAYERS - 1}": "_enc"}
    places |= {f"_aux_{layer + 1}": f"_{layer}" for layer in range(LAYERS - 2)}
    kinds = {"loss_vfl": "loss_ce", "loss_bbox": "loss_bbox", "loss_giou": "loss_giou"}
    return {ours + place: found[kind + aux] for kind, ours in kinds.items() for aux, place in places.items()}


def test_losses_and_their_gradients_are_those_of_transformers() -> None:
    ours, theirs = pair("three levels")
    # Statistics of all norms stay, so that both see the same; the losses ask for training in all else.
    for model in (ours, theirs):
        model.train()
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eval()
    torch.manual_seed(4)
    pixels = torch.rand(2, 3, 96, 96)
    targets = [Targets(torch.tensor(labels), torch.rand(len(labels), 4) * 0.3 + 0.3) for labels in ([0, 3], [4])]
    expected = their_losses(theirs, pixels, targets)
    predictions, proposals = ours.predict(ours.backbone(pixels), (96, 96), [(96, 96)] * 2)
    found = ours.losses(predictions, proposals, targets)
    assert predictions[PRIMARY].boxes.gt(0).all()  # transformers bounds them
    assert {key: found[key].item() for key in expected} == pytest.approx(
        {key: value.item() for key, value in expected.items()}, rel=1e-4
    )
    torch.stack([found[key] for key in expected]).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    state = {**theirs.state_dict(), **gradients}
    named = CODE.to_ours(state)
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None and "backbone" not in name and "bbox_embed" not in name:
            torch.testing.assert_close(parameter.grad, named[name], rtol=1e-3, atol=1e-5, msg=name)

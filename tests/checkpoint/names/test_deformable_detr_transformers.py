"""The pip package's DeformableDetr beside ours, with the same weights and the same pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.checkpoint.names.deformable_detr import CODES
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import PRIMARY
from tests.rankings import calibrate, decided, mute_invalid_proposals

transformers = pytest.importorskip("transformers")

VARIANTS = {"plain": (False, False), "refined": (False, True), "two_stage": (True, True)}
NUM_QUERIES, NUM_LABELS = 9, 5
SIZES = [(96, 128), (80, 70)]


def perturb(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.mul_(1 + 0.2 * torch.rand_like(tensor))
            elif "backbone" in name:
                tensor.add_(0.02 * torch.randn_like(tensor))
            else:
                tensor.add_(0.1 * torch.randn_like(tensor))


def build_theirs(variant: str, *, own_resnet: bool = False) -> Any:
    two_stage, refine = VARIANTS[variant]
    backbone = {}
    if own_resnet:
        stages = ["stage2", "stage3", "stage4"]
        backbone["backbone_config"] = transformers.ResNetConfig(depths=[3, 4, 6, 3], out_features=stages)
    config = transformers.DeformableDetrConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=NUM_QUERIES,
        two_stage_num_proposals=NUM_QUERIES,
        two_stage=two_stage,
        with_box_refine=refine,
        num_labels=NUM_LABELS,
        disable_custom_kernels=True,
        **backbone,
    )
    model = transformers.DeformableDetrForObjectDetection(config).eval()
    perturb(model)
    if two_stage:
        calibrate(model, lambda: model(pixel_values=draw()[0]))
        inner = model.model
        mute_invalid_proposals(lambda x: inner.enc_output_norm(inner.enc_output(x)), inner.decoder.class_embed[-1])
    return model


def build_ours(variant: str) -> DETR:
    two_stage, refine = VARIANTS[variant]
    model = get_config(f"common/models/deformable_detr{'_two_stage' if two_stage else ''}.py").model
    model.transformer.update(embed_dim=32)
    model.transformer.position_embedding.num_features = 16
    model.transformer.encoder.num_layers = 2
    model.transformer.encoder.layer.update(num_heads=4, hidden_dim=48)
    model.transformer.decoder.update(num_layers=3, refine=refine)
    model.transformer.heads.shared = not refine
    model.transformer.query_source.num_queries = NUM_QUERIES
    model.num_classes = NUM_LABELS
    return instantiate(model).eval()


def draw() -> tuple[Tensor, Tensor]:
    """A batch (2, 3, 96, 128) of two sizes, zero where padded, and its mask."""
    pixels, mask = torch.zeros(2, 3, *SIZES[0]), torch.zeros(2, *SIZES[0], dtype=torch.int64)
    for i, (height, width) in enumerate(SIZES):
        pixels[i, :, :height, :width] = torch.randn(3, height, width)
        mask[i, :height, :width] = 1
    return pixels, mask


@torch.no_grad()
def outputs(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Our logits and boxes of the last layer."""
    predictions, _ = model.predict(model.backbone(pixels), tuple(pixels.shape[-2:]), SIZES)
    return predictions[PRIMARY].logits[-1], predictions[PRIMARY].boxes[-1]


def assert_the_same_outputs(theirs: Any, ours: torch.nn.Module, *, atol: float = 2e-4) -> None:
    """On a batch of two sizes; of two-stage models one whose proposals rank the same whatever rounding does."""

    def run(drawn: tuple[Tensor, Tensor]) -> Any:
        with torch.no_grad():
            return theirs(pixel_values=drawn[0], pixel_mask=drawn[1])

    pixels, mask = decided(draw, run) if getattr(theirs.config, "two_stage", False) else draw()
    expected = run((pixels, mask))
    logits, boxes = outputs(ours, pixels)
    assert expected.logits.std() > 0.1
    assert expected.pred_boxes.std() > 0.01
    torch.testing.assert_close(logits, expected.logits, atol=atol, rtol=0)
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=atol, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_converted_model_gives_the_outputs_of_transformers(variant: str) -> None:
    theirs, ours = build_theirs(variant), build_ours(variant)
    ours.load_state_dict(CODES["transformers"].to_ours(theirs.state_dict()))
    assert_the_same_outputs(theirs, ours)


def test_a_model_with_their_own_resnet_gives_the_same_outputs() -> None:
    theirs, ours = build_theirs("two_stage", own_resnet=True), build_ours("two_stage")
    ours.load_state_dict(CODES["transformers"].to_ours(theirs.state_dict()))
    assert_the_same_outputs(theirs, ours)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_of_save_pretrained_holds_what_the_model_in_memory_does(tmp_path: Path, variant: str) -> None:
    theirs = build_theirs(variant)
    theirs.save_pretrained(tmp_path)
    filed = CODES["transformers"].to_ours(load_checkpoint(tmp_path / "model.safetensors"))
    in_memory = CODES["transformers"].to_ours(theirs.state_dict())
    assert filed.keys() == in_memory.keys()
    assert [key for key in filed if not torch.equal(filed[key], in_memory[key])] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_weights_load_into_transformers_and_come_back(variant: str) -> None:
    ours = build_ours(variant)
    perturb(ours)
    calibrate(ours, lambda: outputs(ours, draw()[0]))
    if variant == "two_stage":
        source, (class_head, _) = ours.transformer.query_source, ours.transformer.heads.of_encoder()
        mute_invalid_proposals(lambda x: source.enc_output_norm(source.enc_output(x)), class_head)
    state = ours.state_dict()
    converted = CODES["transformers"].to_theirs(state)
    config = build_theirs(variant).config
    theirs, report = transformers.DeformableDetrForObjectDetection.from_pretrained(
        None, config=config, state_dict=converted, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert_the_same_outputs(theirs.eval(), ours)
    back = CODES["transformers"].to_ours(converted)
    assert back.keys() == state.keys()
    assert [key for key in state if not torch.equal(back[key], state[key])] == []


def test_mixed_query_selection_has_no_place_in_transformers(build_tiny: Callable[..., DETR]) -> None:
    state = build_tiny("plus_plus").state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    with pytest.raises(ValueError, match="mixed query selection"):
        CODES["transformers"].to_theirs(state)


def test_keys_that_transformers_does_not_have_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"names of the authors.*model\.vision\.weight"):
        CODES["transformers"].to_ours({"model.vision.weight": torch.zeros(1)})


def test_a_query_projection_without_its_key_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"self_attn\.k_proj\.weight"):
        CODES["transformers"].to_ours({"model.decoder.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)})

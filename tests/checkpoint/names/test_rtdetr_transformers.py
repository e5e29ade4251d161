"""The pip package's RTDetr and RTDetrV2 beside ours, with the same weights and the same pixels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from configs.common.models import rtdetr_sizes
from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.checkpoint.names.rtdetr import CODES
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import PRIMARY
from tests.modeling.tiny_rtdetr import build as build_tiny
from tests.rankings import calibrate, decided

transformers = pytest.importorskip("transformers")

NUM_LABELS, NUM_QUERIES = 5, 12
VARIANTS = {  # version, sampling, backbone
    "v1": (1, "bilinear", "r18"),
    "v1_bottlenecks": (1, "bilinear", "r50"),
    "v2": (2, "bilinear", "r18"),
    "v2_discrete": (2, "discrete", "r18"),
}


def build_theirs(variant: str) -> Any:
    version, sampling, backbone = VARIANTS[variant]
    basic = backbone == "r18"
    hidden_sizes = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    options: dict[str, Any] = {}
    if version == 2:
        options = {"decoder_method": {"bilinear": "default", "discrete": "discrete"}[sampling], "decoder_n_points": 3}
    kind = transformers.RTDetrConfig if version == 1 else transformers.RTDetrV2Config
    config = kind(
        backbone_config=transformers.RTDetrResNetConfig(
            embedding_size=64,
            hidden_sizes=hidden_sizes,
            depths=[2, 2, 2, 2] if basic else [3, 4, 6, 3],
            layer_type="basic" if basic else "bottleneck",
            downsample_in_bottleneck=False,
            out_features=["stage2", "stage3", "stage4"],
        ),
        encoder_in_channels=hidden_sizes[1:],
        d_model=32,
        encoder_hidden_dim=48,
        encoder_ffn_dim=40,
        encoder_attention_heads=4,
        decoder_in_channels=[48, 48, 48],
        decoder_attention_heads=4,
        decoder_ffn_dim=56,
        decoder_layers=2,
        num_queries=NUM_QUERIES,
        num_labels=NUM_LABELS,
        hidden_expansion=0.5 if basic else 1.0,
        **options,
    )
    name = "RTDetrForObjectDetection" if version == 1 else "RTDetrV2ForObjectDetection"
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "n_points_scale" not in key:
                tensor.add_((0.02 if "backbone" in key else 0.1) * torch.randn_like(tensor))
    calibrate(model, lambda: model(pixel_values=torch.rand(2, 3, 96, 96)))
    return model


def build_ours(variant: str) -> DETR:
    version, sampling, backbone = VARIANTS[variant]
    model = get_config("common/models/rtdetr.py").model
    model.num_classes = NUM_LABELS
    if backbone == "r18":
        rtdetr_sizes.make_r18(model)
    model.neck.necks[0].out_channels = 48
    model.neck.necks[0].encoder.layer.update(num_heads=4, hidden_dim=40)
    transformer = model.transformer
    transformer.embed_dim = 32
    transformer.query_source.num_queries = NUM_QUERIES
    transformer.decoder.num_layers = 2
    transformer.decoder.layer.update(num_heads=4, hidden_dim=56, sampling=sampling)
    if version == 2:
        transformer.decoder.layer.num_points = 3
    transformer.decoder.query_position.hidden_dim = 64
    return instantiate(model).eval()


@torch.no_grad()
def assert_the_same_outputs(theirs: Any, ours: DETR, size: tuple[int, int]) -> None:
    """In the same order too: the proposals are ranked by gaps that rounding does not reach."""
    pixels = decided(lambda: torch.rand(2, 3, *size), lambda drawn: theirs(pixel_values=drawn))
    expected = theirs(pixel_values=pixels)
    predictions, _ = ours.predict(ours.backbone(pixels), size, [size] * 2)
    logits, boxes = predictions[PRIMARY].logits[-1], predictions[PRIMARY].boxes[-1]
    assert expected.logits.std() > 0.1
    assert expected.pred_boxes.std() > 0.01
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=2e-4, rtol=0)
    torch.testing.assert_close(logits, expected.logits, atol=2e-4, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_converted_model_gives_the_outputs_of_transformers(variant: str) -> None:
    theirs, ours = build_theirs(variant), build_ours(variant)
    ours.load_state_dict(CODES["transformers"].to_ours(theirs.state_dict()))
    assert_the_same_outputs(theirs, ours, (96, 96))
    assert_the_same_outputs(theirs, ours, (64, 128))


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_file_of_save_pretrained_holds_what_the_model_in_memory_does(tmp_path: Path, variant: str) -> None:
    theirs = build_theirs(variant)
    theirs.save_pretrained(tmp_path)
    filed = CODES["transformers"].to_ours(load_checkpoint(tmp_path / "model.safetensors"))
    in_memory = CODES["transformers"].to_ours(theirs.state_dict())
    assert filed.keys() == in_memory.keys()
    assert [key for key in filed if not torch.equal(filed[key], in_memory[key])] == []


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_our_weights_load_into_transformers_and_come_back(variant: str) -> None:
    ours, theirs = build_ours(variant), build_theirs(variant)
    state = ours.state_dict() | CODES["transformers"].to_ours(theirs.state_dict())
    ours.load_state_dict(state)
    converted = CODES["transformers"].to_theirs(ours.state_dict())
    loaded, report = type(theirs).from_pretrained(
        None, config=theirs.config, state_dict=converted, output_loading_info=True
    )
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert all(key.endswith(("num_batches_tracked", "n_points_scale")) for key in report["missing_keys"])
    assert_the_same_outputs(loaded.eval(), ours, (64, 96))
    back = CODES["transformers"].to_ours(converted)
    kept = {key: value for key, value in ours.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert back.keys() == kept.keys()
    assert [key for key in kept if not torch.equal(back[key], kept[key])] == []


def test_what_has_no_name_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"1 keys .*RTDetr.*model\.vision\.weight"):
        CODES["transformers"].to_ours({"model.vision.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"backbone\.res3"):
        CODES["transformers"].to_theirs(build_tiny().state_dict())

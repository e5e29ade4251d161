"""What ``config.json`` of transformers' D-FINE says of backbone and levels, in our words and back."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

_TAG = "ssld_stage1_in22k_in1k"
"""Of the weights in timm that training starts from; the network is the same with any."""

_FIELDS = (
    "stem_channels",
    "stage_in_channels",
    "stage_mid_channels",
    "stage_out_channels",
    "stage_num_blocks",
    "stage_numb_of_layers",
    "use_learnable_affine_block",
)


def _size(*values: list[int] | bool) -> Mapping[str, Any]:
    return dict(zip(_FIELDS, values, strict=True))


SIZES: Mapping[str, Mapping[str, Any]] = {
    "hgnetv2_b0": _size(
        [3, 16, 16], [16, 64, 256, 512], [16, 32, 64, 128], [64, 256, 512, 1024], [1, 1, 2, 1], [3] * 4, True
    ),
    "hgnetv2_b2": _size(
        [3, 24, 32], [32, 96, 384, 768], [32, 64, 128, 256], [96, 384, 768, 1536], [1, 1, 3, 1], [4] * 4, True
    ),
    "hgnetv2_b4": _size(
        [3, 32, 48], [48, 128, 512, 1024], [48, 96, 192, 384], [128, 512, 1024, 2048], [1, 1, 3, 1], [6] * 4, False
    ),
    "hgnetv2_b5": _size(
        [3, 32, 64], [64, 128, 512, 1024], [64, 128, 256, 512], [128, 512, 1024, 2048], [1, 2, 5, 2], [6] * 4, False
    ),
}
"""What tells timm's HGNetv2 apart, in their words."""


def set_fine(model: DictConfig, values: Mapping[str, Any]) -> bool:
    """Set backbone and levels.

    Args:
        model: of a D-FINE recipe, changed in place.
        values: of config.json.

    Returns:
        False where the backbone is none of timm's HGNetv2 that D-FINE has.
    """
    backbone = {**SIZES["hgnetv2_b4"], **(values.get("backbone_config") or {})}
    name = next((name for name, size in SIZES.items() if all(backbone[k] == v for k, v in size.items())), None)
    if name is None or backbone.get("model_type", "hgnet_v2") != "hgnet_v2":
        return False
    levels = values["num_feature_levels"]
    features = {2: ["res4", "res5"], 3: ["res3", "res4", "res5"]}[levels]
    model.backbone.update(name=f"{name}.{_TAG}", out_features=features)
    if not values.get("freeze_backbone_batch_norms", True):
        model.backbone.update(frozen_norm=False, freeze_at=0)
    hybrid, projection = model.neck.necks
    hybrid.in_channels = backbone["stage_out_channels"][-levels:]
    projection.update(in_channels=["${...0.out_channels}"] * levels, in_features=[f"map{i}" for i in range(levels)])
    return True


def fine_json(model: DictConfig) -> dict[str, Any] | None:
    """The same of ours in their words; None where they have no such backbone."""
    size = SIZES.get(str(model.backbone.get("name")).partition(".")[0])
    if size is None:
        return None
    levels, layers = int(model.transformer.num_levels), int(model.transformer.decoder.num_layers)
    channels = size["stage_out_channels"]
    return {
        "backbone_config": {
            "model_type": "hgnet_v2",
            **size,
            "hidden_sizes": channels,
            "out_features": ["stage2", "stage3", "stage4"][-levels:],
        },
        "freeze_backbone_batch_norms": bool(model.backbone.get("frozen_norm")),
        "encoder_in_channels": channels[-levels:],
        "decoder_in_channels": [int(model.neck.necks[0].out_channels)] * levels,
        "feat_strides": [8, 16, 32][-levels:],
        "encode_proj_layers": [levels - 1],
        "eval_idx": (model.transformer.decoder.get("num_eval_layers") or layers) - 1,
    }

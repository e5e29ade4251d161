"""Sizes of D-FINE, and of DEIM on it, as changes to the model on HGNetv2-B4 (the authors' configuration files)."""

from typing import Any


def make_n(model: Any) -> None:
    """N, 4 M parameters: two levels, width 128; all of the backbone is trained."""
    _backbone(model, "b0", [512, 1024])
    model.backbone.out_features = ["res4", "res5"]
    hybrid, projection = model.neck.necks
    hybrid.update(out_channels=128, expansion=0.34, depth_mult=0.5)
    hybrid.encoder.layer.hidden_dim = 512
    projection.update(in_channels=["${...0.out_channels}"] * 2, in_features=["map0", "map1"])
    model.transformer.update(embed_dim=128, num_levels=2)
    model.transformer.decoder.num_layers = 3
    model.transformer.decoder.layer.update(hidden_dim=512, num_points=[6, 6])
    model.transformer.decoder.query_position.hidden_dim = 256


def make_s(model: Any) -> None:
    """S, 10 M parameters; all of the backbone is trained."""
    _backbone(model, "b0", [256, 512, 1024])
    model.neck.necks[0].update(expansion=0.5, depth_mult=0.34)
    model.transformer.decoder.num_layers = 3


def make_m(model: Any) -> None:
    """M, 19 M parameters; all of the backbone is trained."""
    _backbone(model, "b2", [384, 768, 1536])
    model.neck.necks[0].depth_mult = 0.67
    model.transformer.decoder.num_layers = 4


def make_x(model: Any) -> None:
    """X, 62 M parameters: the encoder is wider than the decoder, and edges may move farther."""
    model.backbone.name = "hgnetv2_b5.ssld_stage1_in22k_in1k"
    model.neck.necks[0].out_channels = 384
    model.neck.necks[0].encoder.layer.hidden_dim = 2048
    model.transformer.heads.reg_scale = 8.0


def _backbone(model: Any, size: str, channels: list[int]) -> None:
    model.backbone.update(name=f"hgnetv2_{size}.ssld_stage1_in22k_in1k", frozen_norm=False, freeze_at=0)
    model.neck.necks[0].in_channels = channels

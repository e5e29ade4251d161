"""Making any model small enough for a laptop's CPU and pictures of 100 pixels; nothing is pre-trained."""

from typing import Any

from .h_deformable_detr_small import model as _small

_CHANNELS = {"res3": 64, "res4": 128, "res5": 256}


def make_small(model: Any) -> None:
    """Give a config the backbone of the small H-Deformable-DETR, width 128, one encoder and three decoder layers.

    Models of one feature level get that of stride 8, because stride 32 would leave three cells by three.
    """
    taken = list(_CHANNELS) if "necks" in model.neck or len(model.neck.in_channels) > 1 else ["res3"]
    channels = [_CHANNELS[name] for name in taken]
    model.backbone = _small.backbone
    model.backbone.out_features = taken
    transformer = model.transformer
    transformer.embed_dim = 128
    transformer.num_levels = len(taken)
    if transformer.position_embedding is not None:
        transformer.position_embedding.num_features = 64
    if transformer.encoder is not None:
        transformer.encoder.num_layers = 1
        transformer.encoder.layer.update(hidden_dim=256, dropout=0.0)
    transformer.decoder.num_layers = 3
    transformer.decoder.layer.update(hidden_dim=256, dropout=0.0)
    transformer.query_source.num_queries = 40
    if transformer.get("denoising") is not None and transformer.denoising.budget is not None:
        transformer.denoising.budget = 25
    if "necks" in model.neck:
        model.neck.necks[0].update(in_channels=channels, out_channels=128, depth_mult=0.34)
        model.neck.necks[0].encoder.layer.hidden_dim = 256
        model.transformer.decoder.query_position.hidden_dim = 256
    else:
        model.neck.in_channels = channels
    # Images come in one range for all models of a comparison.
    model.pixel_mean, model.pixel_std = _small.pixel_mean, _small.pixel_std

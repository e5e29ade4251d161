"""Sizes of RT-DETR as changes to the model on ResNet-50-vd (the authors' configuration files)."""

from typing import Any


def make_r18(model: Any) -> None:
    """RT-DETR-R18, 20 M parameters; all of the backbone is trained."""
    _narrow(model, "resnet18d", num_layers=3)


def make_r34(model: Any) -> None:
    """RT-DETR-R34, 31 M parameters; all of the backbone is trained."""
    _narrow(model, "resnet34d", num_layers=4)


def make_r50_m(model: Any) -> None:
    """RT-DETR-R50-m, 36 M parameters: narrow fusion, and half of the decoder's layers are for training only."""
    model.neck.necks[0].expansion = 0.5
    model.transformer.decoder.num_eval_layers = 3


def make_r101(model: Any) -> None:
    """RT-DETR-R101, 76 M parameters: the encoder is wider than the decoder."""
    model.backbone.name = "resnet101d"
    _widen(model)


def make_hgnetv2_l(model: Any) -> None:
    """RT-DETR-L, 32 M parameters, on HGNetv2-L."""
    _hgnetv2(model, "hgnetv2_b4")


def make_hgnetv2_x(model: Any) -> None:
    """RT-DETR-X, 67 M parameters, on HGNetv2-X."""
    _hgnetv2(model, "hgnetv2_b5")
    _widen(model)


def _narrow(model: Any, backbone: str, *, num_layers: int) -> None:
    model.backbone.update(name=backbone, frozen_norm=False, freeze_at=0)
    model.neck.necks[0].update(in_channels=[128, 256, 512], expansion=0.5)
    model.transformer.decoder.num_layers = num_layers


def _widen(model: Any) -> None:
    model.neck.necks[0].out_channels = 384
    model.neck.necks[0].encoder.layer.hidden_dim = 2048


def _hgnetv2(model: Any, backbone: str) -> None:
    model.backbone.update(name=backbone, project_first_shortcut=False)

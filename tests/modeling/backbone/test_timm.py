"""Backbones of timm: strides, channels, norms, what is frozen."""

from typing import Any

import pytest
import torch
from torch import nn

from hdetr_d2.modeling import TimmBackbone

SMALL_SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "model_args": {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
}


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({"name": "resnet18"}, [128, 256, 512]),
        ({"name": "convnext_atto"}, [80, 160, 320]),
        ({**SMALL_SWIN, "output_norm": True}, [24, 48, 96]),
    ],
)
def test_a_timm_model_gives_maps_of_strides_8_to_32(options: dict[str, Any], channels: list[int]) -> None:
    backbone = TimmBackbone(**options)
    shape = backbone.output_shape()
    assert [shape[name].channels for name in ("res3", "res4", "res5")] == channels
    assert [shape[name].stride for name in ("res3", "res4", "res5")] == [8, 16, 32]
    features = backbone(torch.randn(1, 3, 96, 160))  # which windows of 7 do not divide
    assert {name: tuple(x.shape) for name, x in features.items()} == {
        name: (1, c, 96 // s, 160 // s) for name, c, s in zip(("res3", "res4", "res5"), channels, (8, 16, 32))
    }


def test_output_norm_normalises_channels_of_every_cell() -> None:
    features = TimmBackbone(**SMALL_SWIN, output_norm=True)(torch.randn(1, 3, 64, 64))
    for x in features.values():
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]), atol=1e-4, rtol=0)


def test_frozen_stages_and_norms_of_a_timm_model_do_not_learn() -> None:
    backbone = TimmBackbone(name="resnet18", frozen_norm=True, freeze_at=2)
    assert not [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(before[name], buffer) for name, buffer in backbone.named_buffers())


def test_features_that_a_timm_model_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="res9"):
        TimmBackbone(name="resnet18", out_features=["res9"])


def test_recomputing_a_timm_models_activations_changes_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = TimmBackbone(**SMALL_SWIN, checkpoint_activations=recompute).train()
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        sum(x.square().sum() for x in backbone(image).values()).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed)

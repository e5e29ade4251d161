"""timm's ResNet-vd; transformers' RT-DETR backbone, which is the authors', is the oracle."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.modeling.backbone import TimmBackbone

transformers = pytest.importorskip("transformers")

DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}


def build_theirs(depth: int) -> Any:
    basic = depth < 50
    config = transformers.RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        depths=DEPTHS[depth],
        layer_type="basic" if basic else "bottleneck",
        downsample_in_bottleneck=False,
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers.AutoBackbone.from_config(config).eval()


def of_theirs(net: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict under the names of ``TimmBackbone``."""
    stem = {"0.convolution": "conv1.0", "0.normalization": "conv1.1", "1.convolution": "conv1.3"}
    stem |= {"1.normalization": "conv1.4", "2.convolution": "conv1.6", "2.normalization": "bn1"}
    state = {}
    for key, value in net.state_dict().items():
        found = re.match(r"embedder\.embedder\.(\d\.\w+)(\..*)", key)
        if found:
            state[f"body.{stem[found[1]]}{found[2]}"] = value
            continue
        found = re.match(r"encoder\.stages\.(\d)\.layers\.(\d+)\.(layer\.(\d)|shortcut(?:\.1)?)\.(\w+)(\..*)", key)
        stage, block, _part, number, kind, rest = found.groups()
        if number is None:
            name = f"downsample.{1 if kind == 'convolution' else 2}"
        else:
            name = f"{'conv' if kind == 'convolution' else 'bn'}{int(number) + 1}"
        state[f"body.layer{int(stage) + 1}.{block}.{name}{rest}"] = value
    return state


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("size", [(64, 96), (70, 45)])
@torch.no_grad()
def test_the_backbone_computes_what_the_authors_does(depth: int, size: tuple[int, int]) -> None:
    theirs = build_theirs(depth)
    for name, tensor in theirs.state_dict().items():
        if name.endswith("running_var"):
            tensor.mul_(0.5 + torch.rand_like(tensor))
        elif tensor.dim() == 1:
            tensor.add_(0.1 * torch.randn_like(tensor))
    ours = TimmBackbone(name=f"resnet{depth}d", project_first_shortcut=True).eval()
    ours.load_state_dict(of_theirs(theirs))
    image = torch.randn(2, 3, *size)
    for feature, expected in zip(ours(image).values(), theirs(image).feature_maps, strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_a_projected_shortcut_starts_as_the_identity_that_it_replaces() -> None:
    plain = TimmBackbone(name="resnet18d").eval()
    projected = TimmBackbone(name="resnet18d", project_first_shortcut=True).eval()
    missing = projected.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {key.rsplit(".", 2)[0] for key in missing} == {"body.layer1.0.downsample"}
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, expected in zip(projected(image).values(), plain(image).values(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["hgnetv2_b4", "resnet18d"])
def test_the_stem_alone_can_be_frozen(name: str) -> None:
    backbone = TimmBackbone(name=name, freeze_at=1, frozen_norm=True)
    frozen = {key.split(".")[1] for key, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == ({"stem"} if name.startswith("hgnet") else {"conv1"})
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())

"""Norms that are constant cost nothing, and change nothing."""

import copy
from typing import Any

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as TimmFrozenBatchNorm2d

from hdetr_d2.modeling import ChannelMapper, TimmBackbone
from hdetr_d2.modeling.backbone.folding import FoldingConv2d, fold_frozen_norms, fuse_norms

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, TimmFrozenBatchNorm2d)


def perturb(model: nn.Module) -> Any:
    """Statistics and parameters such as a trained norm has."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, NORMS):
            for name, low, high in (("weight", 0.6, 1.2), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2)):
                getattr(part, name).data.uniform_(low, high, generator=generator)
            part.running_var.uniform_(0.6, 1.4, generator=generator)
    return model.double()


def detectron2(norm: str) -> Any:
    torch.manual_seed(0)
    stage = ResNet.make_stage(
        BottleneckBlock,
        2,
        in_channels=8,
        out_channels=16,
        bottleneck_channels=8,
        stride_per_block=[2, 1],
        norm=norm,
    )
    return perturb(ResNet(BasicStem(3, 8, norm), [stage], out_features=["stem", "res2"], freeze_at=1))


def timm(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return perturb(TimmBackbone(name=name, **options))


def draw() -> Tensor:
    return torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def norms_of(model: nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, NORMS)]


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", ""])
def test_a_resnet_computes_and_learns_the_same(norm: str) -> None:
    plain = detectron2(norm)
    ours = copy.deepcopy(plain)
    fold_frozen_norms(ours)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert any(isinstance(part, FoldingConv2d) for part in ours.modules())
    for model in (plain, ours):
        sum(feature.sin().sum() for feature in model(draw()).values()).backward()
    for (name, expected), found in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, msg=name)
    for name, expected in plain(draw()).items():
        torch.testing.assert_close(ours(draw())[name], expected)


def test_a_norm_that_somebody_watches_is_called() -> None:
    model = detectron2("FrozenBN")
    fold_frozen_norms(model)
    seen: list[Tensor] = []
    model.stem.conv1.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(draw())
    assert len(seen) == 1


def test_timms_frozen_norms_multiply_and_add_the_same() -> None:
    plain = timm("resnet18", frozen_norm=True, freeze_at=1)
    ours = copy.deepcopy(plain)
    fold_frozen_norms(ours)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for model in (plain, ours):
        sum(feature.sin().sum() for feature in model(draw()).values()).backward()
    for (name, expected), found in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, msg=name)


@pytest.mark.parametrize(
    "backbone",
    [
        detectron2("FrozenBN"),
        detectron2("BN"),
        timm("resnet18"),
        timm("resnet18d", frozen_norm=True),
        timm("resnet18d", project_first_shortcut=True),
    ],
    ids=["Detectron2, frozen", "Detectron2", "timm", "timm's vd, frozen", "timm's vd, projected"],
)
@torch.no_grad()
def test_no_norm_is_left_of_a_fused_resnet(backbone: Any) -> None:
    backbone.eval()
    expected = backbone(draw())
    assert norms_of(backbone)
    fuse_norms(backbone)
    assert norms_of(backbone) == []
    for name, feature in backbone(draw()).items():
        torch.testing.assert_close(feature, expected[name], rtol=1e-9, atol=1e-9)
    fuse_norms(backbone)  # once more changes nothing
    for name, feature in backbone(draw()).items():
        torch.testing.assert_close(feature, expected[name], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_neck_is_fused_and_what_is_not_known_stays() -> None:
    features = {"map": torch.randn(1, 6, 8, 8, dtype=torch.float64)}
    neck = perturb(ChannelMapper(in_channels=[6], in_features=["map"], out_channels=8, num_levels=2, norm="BN")).eval()
    expected = neck(features)
    fuse_norms(neck)
    assert norms_of(neck) == []
    for found, wanted in zip(neck(features), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)

    class Crossed(nn.Module):
        """A norm beside a convolution that is not before it."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv1(self.bn1(x))

    crossed = perturb(Crossed())
    fuse_norms(crossed)
    assert norms_of(crossed) == ["bn1"]


def test_half_precision_rounds_the_folded_weight_alone() -> None:
    model = detectron2("FrozenBN").float()
    fold_frozen_norms(model)
    expected = model(draw().float())["res2"]
    found = copy.deepcopy(model).bfloat16()(draw().bfloat16())["res2"]
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.05 * expected.norm()
    assert isinstance(model.stem.conv1, Conv2d)

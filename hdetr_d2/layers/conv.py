"""Convolutions with BatchNorm, and blocks of them that become one convolution when a model is deployed."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mlp import make_activation


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm and, if one is named, an activation.

    Args:
        in_channels, out_channels: widths.
        kernel_size: odd; the map is padded so that stride 1 keeps its size.
        stride: of the convolution.
        groups: of the convolution; as many as channels make it depthwise.
        activation: name in ``layers.mlp.ACTIVATIONS``; None for none.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.activation = nn.Identity() if activation is None else make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        return self.activation(self.norm(self.conv(x)))

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that computes the same in evaluation, without the activation."""
        if isinstance(self.norm, nn.Identity):
            bias = self.conv.bias
            return self.conv.weight, torch.zeros_like(self.conv.weight[:, 0, 0, 0]) if bias is None else bias
        return folded(self.conv, self.norm)

    def fuse(self) -> None:
        """Become one convolution with bias. Only for evaluation: statistics and their parameters are gone."""
        self.conv = _convolution(*self.folded(), stride=self.conv.stride[0], groups=self.conv.groups)
        self.norm = nn.Identity()


class RepVGG(nn.Module):
    """A 3x3 and a 1x1 convolution, each with its BatchNorm, summed (RepVGG, without the identity branch; RT-DETR).

    Args:
        channels: width of input and output.
        activation: of the sum.
    """

    def __init__(self, *, channels: int, activation: str = "silu") -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ConvNorm(in_channels=channels, out_channels=channels, kernel_size=size) for size in (3, 1)
        )
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        output = self.branches[0](x)
        for branch in self.branches[1:]:
            output = output + branch(x)
        return self.activation(output)

    def fuse(self) -> None:
        """Become one 3x3 convolution. Only for evaluation: statistics and their parameters are gone."""
        if len(self.branches) == 1:
            return
        (weight, bias), (centre, other_bias) = (cast(ConvNorm, branch).folded() for branch in self.branches)
        self.branches = nn.ModuleList([_convolution(weight + F.pad(centre, (1, 1, 1, 1)), bias + other_bias)])


class CSPRep(nn.Module):
    """Two 1x1 branches of which one goes on through RepVGG blocks; their sum (RT-DETR's fusion block).

    Args:
        in_channels, out_channels: widths.
        num_blocks: RepVGG blocks.
        expansion: width between, in parts of ``out_channels``; where it is not 1, a 1x1 convolution follows.
        activation: of every part.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 3,
        expansion: float = 1.0,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        width = int(out_channels * expansion)
        self.main = ConvNorm(in_channels=in_channels, out_channels=width, activation=activation)
        self.side = ConvNorm(in_channels=in_channels, out_channels=width, activation=activation)
        self.blocks = nn.Sequential(*(RepVGG(channels=width, activation=activation) for _ in range(num_blocks)))
        self.output = (
            nn.Identity()
            if width == out_channels
            else ConvNorm(in_channels=width, out_channels=out_channels, activation=activation)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return self.output(self.blocks(self.main(x)) + self.side(x))


class GELAN(nn.Module):
    """A chain of two CSP branches, each with a 3x3 convolution behind it, whose stages are all read at the end.

    This is D-FINE's fusion block, RepNCSPELAN4 in its code: the generalised efficient layer aggregation network of
    YOLOv9 (Wang et al., ECCV 2024) with RepVGG blocks inside.

    Args:
        in_channels, out_channels: widths; between them are 2 * ``out_channels``, of which the chain takes half.
        num_blocks: RepVGG blocks of each branch.
        expansion: width of the chain in parts of half of ``out_channels``, rounded down.
        activation: of every part.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 3,
        expansion: float = 1.0,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        width = int(expansion * out_channels // 2)
        self.input = ConvNorm(in_channels=in_channels, out_channels=2 * out_channels, activation=activation)
        self.stages = nn.ModuleList(
            nn.Sequential(
                CSPRep(in_channels=channels, out_channels=width, num_blocks=num_blocks, activation=activation),
                ConvNorm(in_channels=width, out_channels=width, kernel_size=3, activation=activation),
            )
            for channels in (out_channels, width)
        )
        self.output = ConvNorm(in_channels=2 * (out_channels + width), out_channels=out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        parts = list(self.input(x).chunk(2, 1))
        for stage in self.stages:
            parts.append(stage(parts[-1]))
        return self.output(torch.cat(parts, 1))


class SeparatedDownsample(nn.Sequential):
    """A map of half the size by a 1x1 and a depthwise 3x3 convolution without activations (D-FINE's SCDown).

    Args:
        channels: width of input and output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__(
            ConvNorm(in_channels=channels, out_channels=channels),
            ConvNorm(in_channels=channels, out_channels=channels, kernel_size=3, stride=2, groups=channels),
        )


def folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that computes what both do in evaluation.

    Args:
        norm: any BatchNorm; synchronised and frozen ones are of other classes.
    """
    dtype = torch.promote_types(convolution.weight.dtype, torch.float32)
    mean, variance = norm.running_mean.to(dtype), norm.running_var.to(dtype)
    scale = norm.weight.to(dtype) * (variance + norm.eps).rsqrt()
    bias = torch.addcmul(norm.bias.to(dtype), mean, scale, value=-1)
    if convolution.bias is not None:
        bias = bias + convolution.bias.to(dtype) * scale
    weight = convolution.weight * scale[:, None, None, None]
    return weight.to(convolution.weight.dtype), bias.to(convolution.weight.dtype)


def _convolution(weight: Tensor, bias: Tensor, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution with given weights that keeps the size of a map but for the stride."""
    outputs, inputs, size, _ = weight.shape
    convolution = nn.Conv2d(inputs * groups, outputs, size, stride, padding=size // 2, groups=groups)
    convolution.to(weight)
    convolution.weight = nn.Parameter(weight.clone())
    convolution.bias = nn.Parameter(bias.clone())
    return convolution

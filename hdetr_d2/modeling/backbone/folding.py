"""BatchNorms that are constant, as part of the convolutions that they follow."""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from timm.models import FeatureListNet
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as VisionFrozenBatchNorm2d

from hdetr_d2.layers.conv import folded


class FoldingConv2d(Conv2d):
    """Detectron2's convolution, whose frozen BatchNorm scales its weight and not its output.

    The result and all gradients are the same but for rounding, and a pass over the map is saved, or two of them where
    there is a gradient. On a CPU channels come last in memory, as they do in what the convolution returns. Names of
    parameters are those of ``Conv2d``, of which it is made by changing an object's class (`fold_frozen_norms`).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W'), normalised."""
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        norm = self.norm
        if type(norm) is not FrozenBatchNorm2d or norm._forward_hooks or norm._forward_pre_hooks:
            output: Tensor = super().forward(x)
            return output
        weight, bias = folded(self, norm)
        output = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return output if self.activation is None else self.activation(output)


class FusedFrozenNorm(VisionFrozenBatchNorm2d):
    """The frozen BatchNorm that timm has, as one multiply-add; made by changing its class (`fold_frozen_norms`)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return torch.addcmul(bias[:, None, None], x, scale[:, None, None])


def fold_frozen_norms(backbone: nn.Module) -> None:
    """Have Detectron2's convolutions compute their frozen BatchNorms, and timm's multiply and add at once; in place.

    State dicts keep their names.
    """
    for part in backbone.modules():
        if type(part) is Conv2d:
            part.__class__ = FoldingConv2d  # the parts of its own ResNet name their class
        elif type(part) is VisionFrozenBatchNorm2d:
            part.__class__ = FusedFrozenNorm


@torch.no_grad()
def fuse_norms(model: nn.Module) -> None:
    """Fold BatchNorms of backbones and necks into the convolutions before them, in place and for good.

    Known are Detectron2's convolutions, which hold their norm, a norm behind a convolution in an ``nn.Sequential``, and
    timm's ResNets. All other norms stay as they are.
    """
    for part in list(model.modules()):
        if isinstance(part, Conv2d) and type(part.norm) in _CONSTANT:
            _fuse(part, part.norm)
            part.norm = None
        for parent, name, convolution in list(_pairs(part)):
            _fuse(convolution, getattr(parent, name))
            setattr(parent, name, nn.Identity())


_CONSTANT = (FrozenBatchNorm2d, VisionFrozenBatchNorm2d, FusedFrozenNorm, nn.BatchNorm2d, nn.SyncBatchNorm)
"""In evaluation. Norms with an activation in them are of other classes."""


def _pairs(part: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Conv2d]]:
    """Convolutions that only a norm reads, with the norm's parent and its name there."""
    children = list(part.named_children())
    if isinstance(part, (nn.Sequential, FeatureListNet)):  # which call their children one after another
        neighbours = [(before, name) for (_, before), (name, _) in itertools.pairwise(children)]
    elif isinstance(part, (BasicBlock, Bottleneck)):
        neighbours = [(child, name.replace("conv", "bn")) for name, child in children if name.startswith("conv")]
    else:
        return
    for convolution, name in neighbours:
        if isinstance(convolution, nn.Sequential) and len(convolution):  # a stem of several
            convolution = convolution[-1]
        if type(convolution) is nn.Conv2d and type(getattr(part, name, None)) in _CONSTANT:
            yield part, name, convolution


def _fuse(convolution: nn.Conv2d, norm: nn.Module) -> None:
    weight, bias = folded(convolution, norm)
    convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)

"""Stacks of layers that are alike."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from hdetr_d2.layers import MultiScaleDeformableAttention

Result = TypeVar("Result")


class Pattern(nn.Module):
    """A layer that the layers of a stack are made after; not run itself."""

    def at(self, index: int) -> Self:
        """Make the layer of one place in a stack, with weights of its own.

        Args:
            index: the place, 0 the first. Patterns whose layers differ by place override this.
        """
        del index
        return copy.deepcopy(self)


class StartsAlone(nn.Module):
    """A part of a layer whose matrices are not drawn with the others'."""

    def reset_parameters(self) -> None:
        """Start anew."""
        raise NotImplementedError


def stack(pattern: nn.Module, num_layers: int) -> nn.ModuleList:
    """Layers made after a pattern, as the authors of all models here make them.

    Matrices are drawn anew (Xavier, uniform); deformable attention and what ``StartsAlone`` start at their own values.
    Vectors are those of the pattern in all layers.

    Args:
        pattern: a ``Pattern``, or any module of which the layers are copies.
        num_layers: how many layers.
    """
    layers = nn.ModuleList()
    for index in range(num_layers):
        layer = pattern.at(index) if isinstance(pattern, Pattern) else copy.deepcopy(pattern)
        draw_matrices(layer)
        layers.append(layer)
    return layers


def draw_matrices(module: nn.Module) -> None:
    """Draw all parameters of two or more dimensions anew, but for parts that say how they start."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for part in module.modules():
        if isinstance(part, (MultiScaleDeformableAttention, StartsAlone)):
            part.reset_parameters()


def run_layer(layer: Callable[..., Result], *args: object, recompute: bool) -> Result:
    """Call a layer, keeping only its inputs for backward where ``recompute`` is on and a gradient is wanted."""
    if recompute and torch.is_grad_enabled():
        result: Result = checkpoint(layer, *args, use_reentrant=False)
        return result
    return layer(*args)

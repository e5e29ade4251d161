"""Stacks of layers that are alike."""

import copy

from torch import nn

from hdetr_d2.layers import MultiScaleDeformableAttention


def stack(layer: nn.Module, num_layers: int) -> nn.ModuleList:
    """Copies of a layer, each with weights of its own, as the authors of all models here make them.

    Matrices are drawn anew (Xavier, uniform), deformable attention starts at its own pattern; vectors stay as they
    are. A layer that is to know its place has a method ``set_index``.

    Args:
        layer: the pattern; not used itself.
        num_layers: how many copies.
    """
    layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
    for index, copied in enumerate(layers):
        set_index = getattr(copied, "set_index", None)
        if set_index is not None:
            set_index(index)
        draw_matrices(copied)
    return layers


def draw_matrices(module: nn.Module) -> None:
    """Draw all parameters of two or more dimensions anew, and reset deformable attention."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for part in module.modules():
        if isinstance(part, MultiScaleDeformableAttention):
            part.reset_parameters()

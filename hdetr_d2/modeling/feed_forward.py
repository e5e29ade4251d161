"""The feed-forward part of a transformer layer, and running layers with less memory."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hdetr_d2.layers.mlp import make_activation

Result = TypeVar("Result")


class FeedForward(nn.Module):
    """Two linear layers with an activation and dropout between them.

    Args:
        embed_dim: width of input and output.
        hidden_dim: width between the layers; 1024 in Deformable DETR, 2048 in DETR and H-DETR.
        dropout: after the activation.
        activation: name in ``layers.mlp.ACTIVATIONS``.
    """

    def __init__(
        self, *, embed_dim: int = 256, hidden_dim: int = 2048, dropout: float = 0.0, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.activation = make_activation(activation)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dim) -> (..., embed_dim), without the residual."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def run_layer(layer: Callable[..., Result], *args: object, recompute: bool) -> Result:
    """Call a layer, keeping only its inputs for backward where ``recompute`` is on and a gradient is wanted."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)

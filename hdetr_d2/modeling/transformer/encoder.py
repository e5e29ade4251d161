"""Encoders: from tokens to tokens that know of each other."""

import torch
from torch import Tensor, nn

from hdetr_d2.layers import MLP
from hdetr_d2.structures import Memory

from ..cells import cell_centres
from .stack import draw_matrices, run_layer, stack


class Encoder(nn.Module):
    """A stack of encoder layers.

    Args:
        layer: the pattern of all layers, such as ``DeformableEncoderLayer`` or ``DenseEncoderLayer``.
        num_layers: how many.
        embed_dim: width C, that of the layers.
        scale_positions: multiply the positions by an MLP of the tokens before each layer, one MLP for all of them
            (DAB-DETR's code).
        norm: a LayerNorm after the last layer (DETR's code, where norms stand before the parts of layers).
        fuse_states: give a mix of the tokens and of what every layer makes of them, by an MLP and a norm, in place of
            what the last one does (Relation-DETR).
        checkpoint_activations: recompute each layer in backward instead of keeping what it computed.
    """

    def __init__(
        self,
        *,
        layer: nn.Module,
        num_layers: int = 6,
        embed_dim: int = 256,
        scale_positions: bool = False,
        norm: bool = False,
        fuse_states: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.checkpoint_activations = checkpoint_activations
        self.layers = stack(layer, num_layers)
        self.norm = nn.LayerNorm(embed_dim) if norm else None
        self.fusion = None
        if fuse_states:
            self.fusion = nn.Sequential(
                nn.Linear((num_layers + 1) * embed_dim, embed_dim),
                nn.ReLU(inplace=True),
                nn.Linear(embed_dim, embed_dim),
                nn.LayerNorm(embed_dim),
            )
        self.position_scale = None
        if scale_positions:
            self.position_scale = MLP(
                in_features=embed_dim, hidden_features=embed_dim, out_features=embed_dim, num_layers=2
            )
            draw_matrices(self.position_scale)

    def forward(self, memory: Memory) -> Tensor:
        """Tokens (B, S, C) of the flattened maps -> encoded tokens (B, S, C)."""
        # A cell refers to its own place on every level, of which each is padded to another degree.
        reference = cell_centres(memory)[:, :, None] * memory.valid_ratios[:, None]
        tokens = memory.tokens
        states = [tokens]
        for layer in self.layers:
            positions = memory.positions
            if self.position_scale is not None:
                positions = positions * self.position_scale(tokens)
            tokens = run_layer(
                layer,
                tokens,
                positions,
                reference,
                memory.spatial_shapes,
                memory.padding,
                recompute=self.checkpoint_activations,
            )
            states.append(tokens)
        if self.fusion is not None:
            tokens = self.fusion(torch.cat(states, -1))
        return tokens if self.norm is None else self.norm(tokens)

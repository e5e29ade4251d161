"""Encoders: from tokens to tokens that know of each other."""

import torch
from torch import Tensor, nn

from hdetr_d2.layers import MultiScaleDeformableAttention
from hdetr_d2.structures import Memory

from .feed_forward import FeedForward, run_layer


def cell_centres(memory: Memory) -> Tensor:
    """Centres of all cells, in [0, 1] of the un-padded image.

    Returns:
        (B, S, 2) as (x, y), float32; above 1 on padding.
    """
    device = memory.valid_ratios.device
    centres = []
    for level, (height, width) in enumerate(memory.spatial_shapes.tolist()):
        x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
        y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)
        # Rounded to whole cells, because a centre may lie just on the margin where proposals begin to be valid.
        valid_cells = (memory.valid_ratios[:, level] * torch.tensor([width, height], device=device)).round()
        centres.append(grid[None] / valid_cells[:, None])
    return torch.cat(centres, dim=1)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over the levels, then a feed-forward part, each with a residual and a norm after it.

    Args:
        embed_dim, num_heads, num_levels, num_points: of the attention.
        hidden_dim: of the feed-forward part.
        dropout: after both parts and inside the second.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, positions: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """(B, S, C) -> (B, S, C); ``reference`` is (B, S, L, 2), the rest as in ``Memory``."""
        update = self.self_attn(tokens + positions, reference, tokens, spatial_shapes, padding)
        tokens = self.self_attn_norm(tokens + self.dropout(update))
        return self.ffn_norm(tokens + self.dropout(self.ffn(tokens)))


class DeformableEncoder(nn.Module):
    """A stack of deformable encoder layers (Deformable DETR, section 4.1).

    Args:
        num_layers: how many.
        embed_dim, num_heads, num_levels, num_points, hidden_dim, dropout: of each layer.
        checkpoint_activations: recompute each layer in backward instead of keeping what it computed.
    """

    def __init__(
        self,
        *,
        num_layers: int = 6,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                num_levels=num_levels,
                num_points=num_points,
                hidden_dim=hidden_dim,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )

    def forward(self, memory: Memory) -> Tensor:
        """Tokens (B, S, C) of the flattened maps -> encoded tokens (B, S, C)."""
        # A cell refers to its own place on every level, of which each is padded to another degree.
        reference = cell_centres(memory)[:, :, None] * memory.valid_ratios[:, None]
        tokens = memory.tokens
        for layer in self.layers:
            tokens = run_layer(
                layer,
                tokens,
                memory.positions,
                reference,
                memory.spatial_shapes,
                memory.padding,
                recompute=self.checkpoint_activations,
            )
        return tokens

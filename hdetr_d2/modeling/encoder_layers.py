"""Layers of an encoder."""

from torch import Tensor, nn

from hdetr_d2.layers import MultiheadAttention, MultiScaleDeformableAttention

from .feed_forward import FeedForward


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over the levels, then a feed-forward part, each with a residual and a norm after it.

    Args:
        embed_dim, num_heads, num_levels, num_points: of the attention.
        hidden_dim: of the feed-forward part.
        dropout: after both parts and inside the second.
        activation: of the feed-forward part.
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
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, positions: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """(B, S, C) -> (B, S, C); ``reference`` is (B, S, L, 2), the rest as in ``Memory``."""
        update = self.self_attn(tokens + positions, reference, tokens, spatial_shapes, padding)
        tokens = self.self_attn_norm(tokens + self.dropout(update))
        return self.ffn_norm(tokens + self.dropout(self.ffn(tokens)))


class DenseEncoderLayer(nn.Module):
    """Self-attention of every token to every other, then a feed-forward part, each with a norm after it (DETR).

    Args:
        embed_dim, num_heads: of the attention.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after both parts and inside the second.
        activation: of the feed-forward part.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, positions: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """(B, S, C) -> (B, S, C); references and shapes are not looked at."""
        del reference, spatial_shapes
        placed = tokens + positions
        update = self.self_attn.to_memory(placed, placed, tokens, padding)
        tokens = self.self_attn_norm(tokens + self.dropout(update))
        return self.ffn_norm(tokens + self.dropout(self.ffn(tokens)))

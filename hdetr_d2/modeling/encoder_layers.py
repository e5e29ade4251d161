"""Layers of an encoder."""

from abc import ABC, abstractmethod

from torch import Tensor

from hdetr_d2.layers import MultiheadAttention, MultiScaleDeformableAttention

from .transformer_layer import TransformerLayer


class EncoderLayer(TransformerLayer, ABC):
    """Self-attention of the tokens, then a feed-forward part; the arguments are those of ``TransformerLayer``."""

    @abstractmethod
    def _attend(
        self, tokens: Tensor, placed: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """What attention adds to the tokens, (B, S, C); ``placed`` are the tokens with their positions added."""

    def forward(
        self, tokens: Tensor, positions: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """Run the layer.

        Args:
            tokens: (B, S, C).
            positions: (B, S, C), added to queries, and in dense attention to keys, but not to values.
            reference: (B, S, L, 2) as (x, y), in [0, 1] of the padded levels.
            spatial_shapes: (L, 2) int64, (H_l, W_l).
            padding: (B, S) bool, True on padding, or None where there is none.

        Returns:
            (B, S, C).
        """

        def attend(x: Tensor) -> Tensor:
            return self._attend(x, x + positions, reference, spatial_shapes, padding)

        return self.feed_forward(self.residual(tokens, self.self_attn_norm, attend))


class DeformableEncoderLayer(EncoderLayer):
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
        attention = MultiScaleDeformableAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        super().__init__(
            attentions={"self_attn": attention},
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            activation=activation,
        )

    def _attend(
        self, tokens: Tensor, placed: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        return self.self_attn(placed, reference, tokens, spatial_shapes, padding)


class DenseEncoderLayer(EncoderLayer):
    """Self-attention of every token to every other, then a feed-forward part, each with a norm after it (DETR).

    Args:
        embed_dim, num_heads: of the attention.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after both parts and inside the second.
        activation: of the feed-forward part.
        pre_norm: as of ``TransformerLayer``.
    """

    self_attn: MultiheadAttention

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
        activation: str = "relu",
        pre_norm: bool = False,
    ) -> None:
        attention = MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        super().__init__(
            attentions={"self_attn": attention},
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            activation=activation,
            pre_norm=pre_norm,
        )

    def _attend(
        self, tokens: Tensor, placed: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        del reference, spatial_shapes
        return self.self_attn.to_memory(placed, placed, tokens, padding)

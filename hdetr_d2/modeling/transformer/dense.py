"""Layers of DETR: every query or token attends to every token."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from hdetr_d2.layers import GroupView, MultiheadAttention
from hdetr_d2.structures import Memory

from .layer import EncoderLayer, PlainDecoderLayer, TransformerLayer
from .query_position import PositionalQuery


class DenseLayer(TransformerLayer):
    """A layer whose attentions are dense.

    Args:
        embed_dim, num_heads: of all attentions.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
        activation: of the feed-forward part.
        pre_norm: as of ``TransformerLayer``.
    """

    attention_names: ClassVar[tuple[str, ...]]
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
        super().__init__(
            attentions={
                name: MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
                for name in self.attention_names
            },
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            activation=activation,
            pre_norm=pre_norm,
        )


class DenseEncoderLayer(DenseLayer, EncoderLayer):
    """Self-attention of every token to every other, then a feed-forward part, each with a norm after it (DETR).

    The arguments are those of ``DenseLayer``.
    """

    attention_names = ("self_attn",)

    def _attend(
        self, tokens: Tensor, placed: Tensor, reference: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        del reference, spatial_shapes
        return self.self_attn.to_memory(placed, placed, tokens, padding)


class DenseDecoderLayer(DenseLayer, PlainDecoderLayer):
    """Self-attention among queries, attention to every token of the memory, feed-forward; a norm after each (DETR).

    The arguments are those of ``DenseLayer``.
    """

    attention_names = ("self_attn", "cross_attn")
    cross_attn: MultiheadAttention

    def _self(self, content: Tensor, query: PositionalQuery, views: Sequence[GroupView]) -> Tensor:
        return self.self_attn(content, query.position, views)

    def _cross(self, content: Tensor, query: PositionalQuery, memory: Memory) -> Tensor:
        assert memory.positions is not None
        keys = memory.tokens + memory.positions
        return self.cross_attn.to_memory(content + query.position, keys, memory.tokens, memory.padding)

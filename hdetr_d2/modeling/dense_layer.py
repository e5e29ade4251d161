"""The decoder layer of DETR."""

from collections.abc import Sequence

from torch import Tensor

from hdetr_d2.layers import GroupView, MultiheadAttention
from hdetr_d2.structures import Memory

from .decoder_layer import DecoderLayer
from .query_position import PositionalQuery


class DenseDecoderLayer(DecoderLayer):
    """Self-attention among queries, attention to every token of the memory, feed-forward; a norm after each (DETR).

    Args:
        embed_dim, num_heads: of both attentions.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
        activation: of the feed-forward part.
        pre_norm: as of ``TransformerLayer``.
    """

    cross_attn: MultiheadAttention

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
                for name in ("self_attn", "cross_attn")
            },
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            activation=activation,
            pre_norm=pre_norm,
        )

    def _self(self, content: Tensor, query: PositionalQuery, views: Sequence[GroupView]) -> Tensor:
        return self.self_attn(content, query.position, views)

    def _cross(self, content: Tensor, query: PositionalQuery, memory: Memory) -> Tensor:
        assert memory.positions is not None
        keys = memory.tokens + memory.positions
        return self.cross_attn.to_memory(content + query.position, keys, memory.tokens, memory.padding)

"""The decoder layer of Conditional DETR and DAB-DETR."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Self

from hdetr_d2.layers import GroupView, attend, attend_to_memory, split_heads
from hdetr_d2.structures import Memory

from .layer import PlainDecoderLayer
from .query_position import PositionalQuery


class ConditionalDecoderLayer(PlainDecoderLayer):
    """Self-attention, cross-attention that compares content with content and place with place, feed-forward.

    In cross-attention every head sees two halves: content, and sine embeddings of the query's and the token's place
    (Conditional DETR, section 3.2; DAB-DETR, section 4.2). A norm follows each residual.

    Args:
        embed_dim, num_heads: of both attentions.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
        activation: of the feed-forward part; DAB-DETR has PReLU, one weight a layer.
        keep_positions: whether every layer of a stack adds positions to the content half of cross-attention, and not
            the first one alone.
    """

    needs_places = True
    self_attn: nn.ModuleDict
    cross_attn: nn.ModuleDict

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
        activation: str = "prelu",
        keep_positions: bool = False,
    ) -> None:
        names = ["query_content", "query_position", "key_content", "key_position", "value", "out"]
        super().__init__(
            attentions={
                "self_attn": _projections(names, embed_dim),
                "cross_attn": _projections([*names, "query_spatial"], embed_dim),
            },
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            activation=activation,
        )
        self.num_heads = num_heads
        self.attention_dropout = dropout
        self.keep_positions = keep_positions

    def at(self, index: int) -> Self:
        """As the base class says: if not all layers add positions to the content half of cross-attention, the first."""
        layer = super().at(index)
        if index > 0 and not self.keep_positions:
            del layer.cross_attn["query_position"]
        return layer

    def _self(self, content: Tensor, query: PositionalQuery, views: Sequence[GroupView]) -> Tensor:
        part = self.self_attn
        of_query = part["query_content"](content) + part["query_position"](query.position)
        of_key = part["key_content"](content) + part["key_position"](query.position)
        of_query, of_key, value = (split_heads(x, self.num_heads) for x in (of_query, of_key, part["value"](content)))
        dropout = self.attention_dropout if self.training else 0.0
        return part["out"](attend(of_query, of_key, value, views, dropout=dropout))

    def _cross(self, content: Tensor, query: PositionalQuery, memory: Memory) -> Tensor:
        part = self.cross_attn
        of_query, of_key = part["query_content"](content), part["key_content"](memory.tokens)
        place = part["key_position"](memory.positions)
        if "query_position" in part:
            of_query = of_query + part["query_position"](query.position)
            of_key = of_key + place
        pairs = [(of_query, part["query_spatial"](query.spatial)), (of_key, place)]
        of_query, of_key = (torch.cat([split_heads(x, self.num_heads) for x in pair], dim=-1) for pair in pairs)
        value = split_heads(part["value"](memory.tokens), self.num_heads)
        dropout = self.attention_dropout if self.training else 0.0
        return part["out"](attend_to_memory(of_query, of_key, value, memory.padding, dropout=dropout))


def _projections(names: Sequence[str], embed_dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(embed_dim, embed_dim) for name in names})

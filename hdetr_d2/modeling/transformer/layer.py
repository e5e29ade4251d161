"""What the layers of encoders and decoders have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from hdetr_d2.layers import FeedForward, GroupView
from hdetr_d2.structures import Memory

from .query_position import PositionalQuery
from .stack import Pattern


class TransformerLayer(Pattern):
    """Attentions and a feed-forward part, each with a residual around it and a norm after it, or before it.

    Args:
        attentions: by attribute name, in order; the norm after ``self_attn`` is ``self_attn_norm``.
        embed_dim: width C.
        hidden_dim: of the feed-forward part.
        dropout: of what each part adds, and inside the feed-forward part.
        activation: of the feed-forward part.
        pre_norm: whether norms stand before the parts, inside the residual, and not after it (DETR's code).
    """

    self_attn_norm: nn.LayerNorm
    cross_attn_norm: nn.LayerNorm

    def __init__(
        self,
        *,
        attentions: Mapping[str, nn.Module],
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
        activation: str,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        for name, attention in attentions.items():
            self.add_module(name, attention)
            self.add_module(f"{name}_norm", nn.LayerNorm(embed_dim))
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def residual(self, content: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        """What a part adds to (B, N, C), with its norm where the layer has it."""
        if self.pre_norm:
            return content + self.dropout(part(norm(content)))
        return norm(content + self.dropout(part(content)))

    def feed_forward(self, content: Tensor, part: FeedForward | None = None) -> Tensor:
        """The last residual, (B, N, C) -> (B, N, C), of the layer's own feed-forward part or of ``part``."""
        return self.residual(content, self.ffn_norm, part or self.ffn)


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


class LayerOutput(NamedTuple):
    """What a decoder layer gives: the queries (B, N, C), and what a tap took on the way, (B, N, C), if there is one."""

    content: Tensor
    tap: Tensor | None = None


class DecoderLayer(Pattern, ABC):
    """What every decoder layer is, one of a user's own too: what it asks of the other parts, and how it is called."""

    samples: ClassVar[bool] = False
    """Whether it samples the memory around references, which must then be there."""

    needs_places: ClassVar[bool] = False
    """Whether it compares the places of queries (``PositionalQuery.spatial``) with those of tokens."""

    needs_token_positions: ClassVar[bool] = True
    """Whether it reads ``Memory.positions``; without any, a model can do without a ``position_embedding``."""

    @abstractmethod
    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor | None,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        """Run the layer.

        Args:
            content: (B, N, C) of the queries.
            query: positional queries.
            reference: (B, N, L, 2 or 4) of the padded levels; None where queries have none.
            memory: encoded tokens.
            views: the groups of the sequence.
            route: the name of the queries' route; "" is the plain one.
        """


class PlainDecoderLayer(TransformerLayer, DecoderLayer):
    """Self-attention among queries, attention to the memory, feed-forward; a norm after each residual.

    The arguments are those of ``TransformerLayer``.
    """

    @abstractmethod
    def _self(self, content: Tensor, query: PositionalQuery, views: Sequence[GroupView]) -> Tensor:
        """What attention of the queries among themselves adds to them, (B, N, C)."""

    @abstractmethod
    def _cross(self, content: Tensor, query: PositionalQuery, memory: Memory) -> Tensor:
        """What attention to the memory adds to the queries, (B, N, C)."""

    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor | None,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        """As the base class says; references are not looked at, and all routes are alike."""
        del reference, route
        content = self.residual(content, self.self_attn_norm, lambda x: self._self(x, query, views))
        content = self.residual(content, self.cross_attn_norm, lambda x: self._cross(x, query, memory))
        return LayerOutput(self.feed_forward(content))

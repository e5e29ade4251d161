"""Layers of a decoder with deformable or dense attention to the memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hdetr_d2.layers import GroupView, MultiheadAttention, MultiScaleDeformableAttention
from hdetr_d2.structures import Memory

from .feed_forward import FeedForward
from .query_position import PositionalQuery


class LayerOutput(NamedTuple):
    """What a decoder layer gives: the queries (B, N, C), and what a tap took on the way, (B, N, C), if there is one."""

    content: Tensor
    tap: Tensor | None = None


class DecoderRoute(nn.Module):
    """What queries of another route have of their own in a decoder layer; all else is shared with the plain route.

    Args:
        name: what groups of queries call it.
        embed_dim: width C.
        num_instructions: learned tokens that the queries of the route attend to beside one another (Mr. DETR's
            instruction mechanism); 0 for none.
        isolated_instructions: whether the tokens see the queries alone and not one another (Mr. DETR on DINO).
        self_attention: whether its queries attend to one another in every layer, or in the first layer alone
            (DAC-DETR, whose second decoder starts from the state after the first one's first self-attention).
        own_norm: a norm of its own after self-attention.
        hidden_dim: of a feed-forward part of its own (Mr. DETR's independent FFN); None for the shared one.
        activation: of that part.
    """

    def __init__(
        self,
        *,
        name: str,
        embed_dim: int = 256,
        num_instructions: int = 0,
        isolated_instructions: bool = False,
        self_attention: bool = True,
        own_norm: bool = False,
        hidden_dim: int | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if not self_attention and (num_instructions or own_norm):
            raise ValueError(
                f"DecoderRoute {name!r}: instructions and a norm of its own are parts of self-attention, which "
                "self_attention=False takes away from all layers but the first"
            )
        self.name = name
        self.self_attention = self_attention
        self.attends = True
        self.num_instructions = num_instructions
        self.isolated_instructions = isolated_instructions
        if num_instructions:
            self.instruction_content = nn.Parameter(torch.randn(num_instructions, embed_dim))
            self.instruction_position = nn.Parameter(torch.randn(num_instructions, embed_dim))
        self.self_attn_norm = nn.LayerNorm(embed_dim) if own_norm else None
        self.ffn = None
        if hidden_dim is not None:
            self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, activation=activation)

    def set_index(self, index: int) -> None:
        """Tell it which layer it is in, 0 the first."""
        self.attends = self.self_attention or index == 0

    def instructed(
        self, content: Tensor, position: Tensor, attention: MultiheadAttention, views: Sequence[GroupView]
    ) -> Tensor:
        """Self-attention of the queries (B, N, C) with the tokens; the first group alone sees them.

        Returns:
            (B, N, C), that of the queries.
        """
        count = self.num_instructions
        batch = content.shape[0]
        first, *others = [_shifted(view, count) for view in views]
        tokens = (0, count)
        keys = (first.queries,) if self.isolated_instructions else (tokens, first.queries)
        if first.mask is not None:
            raise ValueError("DecoderRoute: the queries that see instructions must not be masked among themselves")
        seen = [GroupView(tokens, keys), replace(first, keys=(tokens, *first.keys)), *others]
        content = torch.cat([self.instruction_content.expand(batch, -1, -1), content], dim=1)
        position = torch.cat([self.instruction_position.expand(batch, -1, -1), position], dim=1)
        return attention(content, position, seen)[:, count:]


def _shifted(view: GroupView, by: int) -> GroupView:
    start, stop = view.queries
    keys = tuple((low + by, high + by) for low, high in view.keys)
    return GroupView((start + by, stop + by), keys, view.mask)


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the memory, feed-forward; a norm after each residual.

    Args:
        embed_dim, num_heads: of both attentions.
        num_levels, num_points: of the deformable one; ``num_points`` may differ between levels.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
        activation: of the feed-forward part.
        sampling, authors_clamp: of the deformable attention, where the first is called ``method``.
        cross_first: attend to the memory before the other queries (MS-DETR).
        tap_hidden_dim: width of a feed-forward part of its own that taps the queries between the attentions, for
            one-to-many supervision of the same queries (MS-DETR; needs ``cross_first``); None for no tap.
        routes: what other routes have of their own.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int | Sequence[int] = 4,
        hidden_dim: int = 2048,
        dropout: float = 0.0,
        activation: str = "relu",
        sampling: str = "bilinear",
        authors_clamp: bool = False,
        cross_first: bool = False,
        tap_hidden_dim: int | None = None,
        routes: Sequence[DecoderRoute] = (),
    ) -> None:
        super().__init__()
        if tap_hidden_dim is not None and not cross_first:
            raise ValueError("DeformableDecoderLayer: a tap between the attentions needs cross_first=True (MS-DETR)")
        self.self_attn = MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.self_attn_norm = nn.LayerNorm(embed_dim)
        self.cross_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
            method=sampling,
            authors_clamp=authors_clamp,
        )
        self.cross_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.cross_first = cross_first
        self.tap = None
        if tap_hidden_dim is not None:
            self.tap = FeedForward(
                embed_dim=embed_dim, hidden_dim=tap_hidden_dim, dropout=dropout, activation=activation
            )
            self.tap_norm = nn.LayerNorm(embed_dim)
        self.routes = nn.ModuleDict({part.name: part for part in routes})
        nn.init.xavier_uniform_(self.self_attn.out_proj.weight)

    def set_index(self, index: int) -> None:
        """Tell the routes which layer this is, 0 the first."""
        for route in self.routes.values():
            route.set_index(index)  # type: ignore[operator]

    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        """Run the layer.

        Args:
            content: (B, N, C).
            query: positional queries.
            reference: (B, N, L, 2 or 4) of the padded levels.
            memory: encoded tokens.
            views: the groups of the sequence.
            route: the name of the queries' route; "" is the plain one.
        """
        if route and route not in self.routes:
            raise ValueError(f"DeformableDecoderLayer: there is no route {route!r} among {list(self.routes)}")
        own: DecoderRoute | None = self.routes[route] if route else None  # type: ignore[assignment]
        tapped = None
        if self.cross_first:
            content = self._cross(content, query, reference, memory)
            if self.tap is not None and self.training:
                tapped = self.tap_norm(content + self.dropout(self.tap(content)))
            content = self._self(content, query, views, own)
        else:
            content = self._self(content, query, views, own)
            content = self._cross(content, query, reference, memory)
        ffn = self.ffn if own is None or own.ffn is None else own.ffn
        return LayerOutput(self.ffn_norm(content + self.dropout(ffn(content))), tapped)

    def _self(
        self, content: Tensor, query: PositionalQuery, views: Sequence[GroupView], own: DecoderRoute | None
    ) -> Tensor:
        if own is not None and not own.attends:
            return content
        if own is not None and own.num_instructions:
            update = own.instructed(content, query.position, self.self_attn, views)
        else:
            update = self.self_attn(content, query.position, views)
        norm = self.self_attn_norm if own is None or own.self_attn_norm is None else own.self_attn_norm
        return norm(content + self.dropout(update))

    def _cross(self, content: Tensor, query: PositionalQuery, reference: Tensor, memory: Memory) -> Tensor:
        update = self.cross_attn(
            content + query.position, reference, memory.tokens, memory.spatial_shapes, memory.padding
        )
        return self.cross_attn_norm(content + self.dropout(update))


class DenseDecoderLayer(nn.Module):
    """Self-attention among queries, attention to every token of the memory, feed-forward; a norm after each (DETR).

    Args:
        embed_dim, num_heads: of both attentions.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
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
        self.cross_attn = MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.cross_attn_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForward(embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout, activation=activation)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor | None,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        """As ``DeformableDecoderLayer.forward``; references are not looked at and there is the plain route alone."""
        del reference, route
        update = self.self_attn(content, query.position, views)
        content = self.self_attn_norm(content + self.dropout(update))
        assert memory.positions is not None
        keys = memory.tokens + memory.positions
        update = self.cross_attn.to_memory(content + query.position, keys, memory.tokens, memory.padding)
        content = self.cross_attn_norm(content + self.dropout(update))
        return LayerOutput(self.ffn_norm(content + self.dropout(self.ffn(content))))

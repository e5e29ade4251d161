"""Layers of Deformable DETR and of all that followed it: attention samples a few places of the memory."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from torch import Tensor, nn
from typing_extensions import Self

from hdetr_d2.layers import FeedForward, GroupView, MultiheadAttention, MultiScaleDeformableAttention
from hdetr_d2.structures import Memory

from .layer import DecoderLayer, EncoderLayer, LayerOutput, TransformerLayer
from .query_position import PositionalQuery
from .route import DecoderRoute


class DeformableEncoderLayer(EncoderLayer):
    """Deformable self-attention over the levels, then a feed-forward part, each with a residual and a norm after it.

    Args:
        embed_dim, num_heads, num_levels, num_points: of the attention.
        hidden_dim: of the feed-forward part.
        dropout: after both parts and inside the second.
        activation: of the feed-forward part.
    """

    self_attn: MultiScaleDeformableAttention

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


class DeformableDecoderLayer(TransformerLayer, DecoderLayer):
    """Self-attention among queries, deformable attention to the memory, feed-forward; a norm after each residual.

    Args:
        embed_dim, num_heads: of both attentions.
        num_levels, num_points: of the deformable one; ``num_points`` may differ between levels.
        hidden_dim: of the feed-forward part.
        dropout: of attention weights, after each part, and inside the last.
        activation: of the feed-forward part.
        sampling, authors_clamp, projections: of the deformable attention, where the first is called ``method``.
        cross_first: attend to the memory before the other queries (MS-DETR).
        tap_hidden_dim: width of a feed-forward part of its own that taps the queries between the attentions, for
            one-to-many supervision of the same queries (MS-DETR; needs ``cross_first``); 0 to tap them as they are;
            None for no tap.
        routes: what other routes have of their own.
    """

    samples = True
    needs_token_positions = False
    self_attn: MultiheadAttention
    cross_attn: MultiScaleDeformableAttention

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
        sampling: Literal["bilinear", "discrete"] = "bilinear",
        authors_clamp: bool = False,
        projections: bool = True,
        cross_first: bool = False,
        tap_hidden_dim: int | None = None,
        routes: Sequence[DecoderRoute] = (),
    ) -> None:
        if tap_hidden_dim is not None and not cross_first:
            raise ValueError("DeformableDecoderLayer: a tap between the attentions needs cross_first=True (MS-DETR)")
        self_attn = MultiheadAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        cross_attn = MultiScaleDeformableAttention(
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
            method=sampling,
            authors_clamp=authors_clamp,
            projections=projections,
        )
        super().__init__(
            attentions={"self_attn": self_attn, "cross_attn": cross_attn},
            embed_dim=embed_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            activation=activation,
        )
        self.cross_first = cross_first
        self.taps = tap_hidden_dim is not None
        self.tap = None
        if tap_hidden_dim:
            self.tap = FeedForward(
                embed_dim=embed_dim, hidden_dim=tap_hidden_dim, dropout=dropout, activation=activation
            )
            self.tap_norm = nn.LayerNorm(embed_dim)
        self.routes = nn.ModuleDict({part.name: part for part in routes})
        nn.init.xavier_uniform_(self_attn.out_proj.weight)

    def at(self, index: int) -> Self:
        """As the base class says, for the routes too."""
        layer = super().at(index)
        layer.routes = nn.ModuleDict({name: route.at(index) for name, route in self._routes.items()})
        return layer

    @property
    def _routes(self) -> Mapping[str, DecoderRoute]:
        return cast("Mapping[str, DecoderRoute]", self.routes)

    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor | None,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        """As the base class says; there must be references."""
        if reference is None:
            raise ValueError("DeformableDecoderLayer: queries have no reference to sample around")
        if route and route not in self.routes:
            raise ValueError(f"DeformableDecoderLayer: there is no route {route!r} among {list(self.routes)}")
        own = self._routes[route] if route else None
        tapped = None
        if self.cross_first:
            content = self._cross(content, query, reference, memory)
            if self.taps and self.training:
                tapped = content
                if self.tap is not None:
                    tapped = self.tap_norm(content + self.dropout(self.tap(content)))
            content = self._self(content, query, views, own)
        else:
            content = self._self(content, query, views, own)
            content = self._cross(content, query, reference, memory)
        return LayerOutput(self.feed_forward(content, None if own is None else own.ffn), tapped)

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
        return self.cross_attn_norm(content + self.dropout(self._sampled(content, query, reference, memory)))

    def _sampled(self, content: Tensor, query: PositionalQuery, reference: Tensor, memory: Memory) -> Tensor:
        """What attention finds in the memory, (B, N, C)."""
        placed = content + query.position
        return self.cross_attn(placed, reference, memory.tokens, memory.spatial_shapes, memory.padding)

"""D-FINE's decoder layer: what attention to the memory finds goes through a gate, and not into a residual."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from hdetr_d2.layers import FeedForward, GroupView
from hdetr_d2.structures import Memory

from .deformable import DeformableDecoderLayer
from .layer import LayerOutput
from .query_position import PositionalQuery
from .stack import StartsAlone

LIMIT = 65504.0
"""The largest number of float16, which contents are kept within."""


class Gate(StartsAlone):
    """A sum of two inputs, each weighted by what both say, and a LayerNorm (D-FINE's target gating layer).

    Args:
        embed_dim: width C.
    """

    def __init__(self, *, embed_dim: int = 256) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * embed_dim, 2 * embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with half of each."""
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, content: Tensor, update: Tensor) -> Tensor:
        """Two (B, N, C) -> (B, N, C)."""
        of_content, of_update = self.gate(torch.cat([content, update], -1)).sigmoid().chunk(2, -1)
        return self.norm(of_content * content + of_update * update)


class GatedDecoderLayer(DeformableDecoderLayer):
    """A deformable layer without value and output projections, with a gate after attention to the memory (D-FINE).

    Args:
        embed_dim, num_heads, num_levels, num_points, hidden_dim, dropout, activation, sampling, authors_clamp: as of
            ``DeformableDecoderLayer``.
        wide_from: the first layer of a stack that is wider, layers from which on are for training alone; None for none.
        widening: how many times as wide they are; channels of what they take are repeated.

    Attributes:
        widens: whether this is such a layer.
    """

    widens = False

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 3,
        num_points: int | Sequence[int] = 4,
        hidden_dim: int = 1024,
        dropout: float = 0.0,
        activation: str = "relu",
        sampling: Literal["bilinear", "discrete"] = "bilinear",
        authors_clamp: bool = False,
        wide_from: int | None = None,
        widening: float = 1.0,
    ) -> None:
        shared: dict[str, Any] = {
            "num_heads": num_heads,
            "num_levels": num_levels,
            "num_points": num_points,
            "dropout": dropout,
            "activation": activation,
            "sampling": sampling,
            "authors_clamp": authors_clamp,
        }
        super().__init__(embed_dim=embed_dim, hidden_dim=hidden_dim, projections=False, **shared)
        del self.cross_attn_norm  # the gate has it
        self.gate = Gate(embed_dim=embed_dim)
        self.embed_dim = embed_dim
        self.wide_from = wide_from
        self.wider = {
            "embed_dim": round(widening * embed_dim),
            "hidden_dim": round(widening * hidden_dim),
            **shared,
        }

    def at(self, index: int) -> Self:
        """As the base class says; a wide layer has other shapes than the pattern."""
        if self.wide_from is None or index < self.wide_from:
            return super().at(index)
        layer = type(self)(**self.wider)
        layer.widens = True
        return layer

    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor | None,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        """As the base class says."""
        content, tokens = widened(content, self.embed_dim), widened(memory.tokens, self.embed_dim)
        query = query._replace(position=widened(query.position, self.embed_dim))
        return super().forward(content, query, reference, replace(memory, tokens=tokens), views, route)

    def feed_forward(self, content: Tensor, part: FeedForward | None = None) -> Tensor:
        """As the base class says, within what float16 can hold."""
        added = content + self.dropout((part or self.ffn)(content))
        return self.ffn_norm(added.clamp(-LIMIT, LIMIT))

    def _cross(self, content: Tensor, query: PositionalQuery, reference: Tensor, memory: Memory) -> Tensor:
        return self.gate(content, self.dropout(self._sampled(content, query, reference, memory)))


def widened(x: Tensor, width: int) -> Tensor:
    """Channels of (..., C) repeated to (..., width), the nearest ones; themselves where they are as many."""
    if x.shape[-1] == width:
        return x
    return F.interpolate(x.flatten(0, -2)[:, None], size=width)[:, 0].unflatten(0, x.shape[:-1])

"""What decoder layers give, and what those have in common whose queries have no place to sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from hdetr_d2.layers import GroupView
from hdetr_d2.structures import Memory

from .query_position import PositionalQuery
from .transformer_layer import TransformerLayer


class LayerOutput(NamedTuple):
    """What a decoder layer gives: the queries (B, N, C), and what a tap took on the way, (B, N, C), if there is one."""

    content: Tensor
    tap: Tensor | None = None


class DecoderLayer(TransformerLayer, ABC):
    """Self-attention among queries, attention to the whole memory, feed-forward; a norm after each residual.

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
        """As ``DeformableDecoderLayer.forward``; references are not looked at and there is the plain route alone."""
        del reference, route
        content = self.residual(content, self.self_attn_norm, lambda x: self._self(x, query, views))
        content = self.residual(content, self.cross_attn_norm, lambda x: self._cross(x, query, memory))
        return LayerOutput(self.feed_forward(content))

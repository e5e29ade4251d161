"""What queries of another route have of their own."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import Self

from hdetr_d2.layers import FeedForward, GroupView, MultiheadAttention

from .stack import Pattern


class DecoderRoute(Pattern):
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

    def at(self, index: int) -> Self:
        """As the base class says; what it has of its own may be part of the first layer alone."""
        route = super().at(index)
        route.attends = self.self_attention or index == 0
        return route

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

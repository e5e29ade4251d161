"""Dense self-attention over groups of queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class GroupView:
    """What one group of a concatenated query sequence attends to.

    Args:
        queries: (start, stop) of the group itself.
        keys: (start, stop) of every part that it sees, itself included.
        mask: (n, m) bool over the seen keys, True where attention is blocked; None where all are seen. A fully
            blocked row would give NaN and must not occur.
    """

    queries: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    mask: Tensor | None = None


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameters of ``torch.nn.MultiheadAttention``, on scaled-dot-product kernels.

    Attention between groups that do not see each other is never computed: each group is a call of its own, so
    ``n`` one-to-one and ``T`` one-to-many queries cost ``n^2 + T^2`` scores instead of ``(n + T)^2`` with a mask, and
    the result is the same.

    Args:
        embed_dim: width C of queries, keys and values.
        num_heads: number of heads; divides ``embed_dim``.
        dropout: probability of dropping an attention weight in training.
    """

    def __init__(self, *, embed_dim: int = 256, num_heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        allowed = None if mask is None else ~mask
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)

    def forward(self, content: Tensor, position: Tensor, views: Sequence[GroupView] | None = None) -> Tensor:
        """Self-attention, the position added to queries and keys.

        Args:
            content: (B, N, C).
            position: (B, N, C).
            views: the groups of the sequence; together their ``queries`` cover it in order. None is one group.

        Returns:
            (B, N, C).
        """
        width = content.shape[-1]
        query_key = F.linear(content + position, self.in_proj_weight[: 2 * width], self.in_proj_bias[: 2 * width])
        value = F.linear(content, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
        query, key = query_key.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        value = value.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        if views is None:
            views = [GroupView(queries=(0, content.shape[1]), keys=((0, content.shape[1]),))]
        outputs = []
        for view in views:
            seen_key = _parts(key, view.keys)
            outputs.append(self._attend(_parts(query, (view.queries,)), seen_key, _parts(value, view.keys), view.mask))
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        return self.out_proj(output.transpose(1, 2).flatten(2))


def _parts(x: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    """Rows of (B, H, N, D) in the given ranges, without a copy where it is one range."""
    parts = [x[:, :, start:stop] for start, stop in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

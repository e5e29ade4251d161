"""Dense attention: over groups of queries, and from queries to a memory."""

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True)
class GroupView:
    """What one group of a concatenated query sequence attends to.

    Args:
        queries: (start, stop) of the group itself.
        keys: (start, stop) of every part that it sees, itself included.
        mask: (n, m) bool over the seen keys, True where attention is blocked; None where all are seen. A fully
            blocked row would give NaN and must not occur.
        bias: (B, H, n, m), added to the scores of the seen keys; None for nothing.
    """

    queries: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    mask: Tensor | None = None
    bias: Tensor | None = None

    def allowed(self, dtype: torch.dtype) -> Tensor | None:
        """Both as PyTorch's attention takes them: True where it may look, or numbers of ``dtype`` to add."""
        if self.bias is None:
            return None if self.mask is None else ~self.mask
        bias = self.bias.to(dtype)
        return bias if self.mask is None else bias.masked_fill(self.mask, float("-inf"))


@functools.cache
def _fused_kernel_is_broken() -> bool:
    """Whether PyTorch's fused kernel for bfloat16 fails on this CPU.

    It packs for the CPU's matrix unit (AMX) where there is one, with instructions that ``ATEN_CPU_CAPABILITY`` may have
    turned off: "pack_vnni2 is only supported when avx512 is supported".
    """
    has_matrix_unit = getattr(torch.cpu, "_is_amx_tile_supported", bool)  # PyTorch 2.4 does not tell, nor use it
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") and has_matrix_unit()


def _is_exporting() -> bool:
    told = getattr(torch.compiler, "is_exporting", bool)  # PyTorch 2.4 does not tell
    return bool(told())


def _attention(query: Tensor, key: Tensor, value: Tensor, *, allowed: Tensor | None, dropout: float) -> Tensor:
    if allowed is not None and allowed.is_floating_point() and _is_exporting():
        # In plain operators: of numbers to add, exporters assume strides of a fused kernel that they do not have.
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]) + allowed
        return scores.softmax(-1) @ value
    half_on_cpu = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    with sdpa_kernel(SDPBackend.MATH) if half_on_cpu and _fused_kernel_is_broken() else contextlib.nullcontext():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)


def attend(
    query: Tensor, key: Tensor, value: Tensor, views: Sequence[GroupView] | None = None, *, dropout: float = 0.0
) -> Tensor:
    """Scaled-dot-product attention of groups.

    Attention between groups that do not see each other is never computed: each group is a call of its own, so
    ``n`` one-to-one and ``T`` one-to-many queries cost ``n^2 + T^2`` scores instead of ``(n + T)^2`` with a mask, and
    the result is the same.

    Args:
        query, key, value: (B, H, N, D), heads split.
        views: the groups of the sequence; together their ``queries`` cover it in order. None is one group.
        dropout: probability of dropping an attention weight.

    Returns:
        (B, N, H * D).
    """
    if views is None:
        views = [GroupView(queries=(0, query.shape[2]), keys=((0, query.shape[2]),))]
    outputs = []
    for view in views:
        own = _parts(query, (view.queries,))
        allowed = view.allowed(query.dtype)
        outputs.append(
            _attention(own, _parts(key, view.keys), _parts(value, view.keys), allowed=allowed, dropout=dropout)
            if own.shape[2]
            else own
        )
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return output.transpose(1, 2).flatten(2)


def attend_to_memory(
    query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, *, dropout: float = 0.0
) -> Tensor:
    """Scaled-dot-product attention to all tokens of a memory.

    Args:
        query: (B, H, N, D); ``key`` (B, H, S, D) and ``value`` (B, H, S, E), heads split.
        padding: (B, S) bool, True on padding, which is not attended to; None where there is none.
        dropout: probability of dropping an attention weight.

    Returns:
        (B, N, H * E).
    """
    allowed = None if padding is None else ~padding[:, None, None]
    output = _attention(query, key, value, allowed=allowed, dropout=dropout)
    return output.transpose(1, 2).flatten(2)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) -> (B, H, N, C / H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameters of ``torch.nn.MultiheadAttention``, on scaled-dot-product kernels.

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

    def _project(self, x: Tensor, first: int, last: int) -> Tensor:
        """Rows of the input projection: 0 to 1 is the query's, 1 to 2 the key's, 2 to 3 the value's."""
        rows = slice(first * x.shape[-1], last * x.shape[-1])
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def forward(self, content: Tensor, position: Tensor, views: Sequence[GroupView] | None = None) -> Tensor:
        """Self-attention, the position added to queries and keys.

        Args:
            content: (B, N, C).
            position: (B, N, C).
            views: as ``attend`` has them.

        Returns:
            (B, N, C).
        """
        query_key = self._project(content + position, 0, 2)
        query, key = query_key.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        value = split_heads(self._project(content, 2, 3), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(query, key, value, views, dropout=dropout))

    def to_memory(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None) -> Tensor:
        """Attention to other tokens.

        Args:
            query: (B, N, C); ``key`` and ``value``: (B, S, C), positions added where they belong.
            padding: (B, S) bool, True on tokens that are not attended to, or None.

        Returns:
            (B, N, C).
        """
        query, key, value = (
            split_heads(self._project(x, i, i + 1), self.num_heads) for i, x in enumerate((query, key, value))
        )
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend_to_memory(query, key, value, padding, dropout=dropout))


def _parts(x: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    """Rows of (B, H, N, D) in the given ranges, without a copy where it is one range."""
    parts = [x[:, :, start:stop] for start, stop in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

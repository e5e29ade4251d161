"""The multi-scale deformable attention module around the compiled op."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.ops import ms_deform_attn_fused

from .discrete_sampling import discrete_sampling
from .precision import autocast_dtype, full_precision

METHODS = ("bilinear", "discrete")


class MultiScaleDeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, eq. 3).

    Every query samples ``num_points`` places a head and level around its reference and averages what it finds with
    learned weights. Parameter names are the authors'.

    Args:
        embed_dim: width C.
        num_heads: number of heads; divides ``embed_dim``.
        num_levels: number of feature levels.
        num_points: sampling points a head and level, or one number for each level (RT-DETRv2, section 3.1).
        method: ``"bilinear"``, or ``"discrete"`` for the value of one cell without interpolation (RT-DETRv2, section
            3.1), which needs no grid sampling where a model is deployed. It is for fine-tuning a bilinear model: no
            gradient reaches locations, and the offsets are frozen.
        authors_clamp: what the authors' discrete sampling does on maps that are not square, see ``discrete_sampling``.
        projections: whether values and the result are projected; without, heads read channels of the memory as they
            are (D-FINE).
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int | Sequence[int] = 4,
        method: Literal["bilinear", "discrete"] = "bilinear",
        authors_clamp: bool = False,
        projections: bool = True,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"MultiScaleDeformableAttention: embed_dim {embed_dim} is not a multiple of num_heads {num_heads}"
            )
        if method not in METHODS:
            raise ValueError(f"MultiScaleDeformableAttention: method {method!r} is none of {METHODS}")
        if authors_clamp and method != "discrete":
            raise ValueError('MultiScaleDeformableAttention: authors_clamp=True needs method="discrete"')
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.points = _points_of_levels(num_points, num_levels)
        self.method = method
        self.authors_clamp = authors_clamp
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * sum(self.points) * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * sum(self.points))
        self.value_proj: nn.Module = nn.Linear(embed_dim, embed_dim) if projections else nn.Identity()
        self.output_proj: nn.Module = nn.Linear(embed_dim, embed_dim) if projections else nn.Identity()
        self.reset_parameters()
        self.sampling_offsets.requires_grad_(method == "bilinear")

    def reset_parameters(self) -> None:
        """Start with head h looking in direction 2 pi h / H, point p at p + 1 cells, and equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        steps = torch.cat([torch.arange(1, points + 1, dtype=torch.float32) for points in self.points])
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * steps[:, None]).reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            if isinstance(projection, nn.Linear):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def forward(
        self, query: Tensor, reference: Tensor, memory: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """Sample the memory around the references.

        Args:
            query: (B, Q, C), the position added.
            reference: (B, Q, L, 2) as (x, y) or (B, Q, L, 4) as cxcywh, in [0, 1] of the padded level. An offset is
                in cells with the former, in half boxes divided by the number of points of its level with the latter.
            memory: (B, S, C), the levels one after another, each row-major.
            spatial_shapes: (L, 2) int64, (H_l, W_l).
            padding: (B, S) bool, True on padding, or None where there is none.

        Returns:
            (B, Q, C).
        """
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        # Locations and weights are float32 under autocast, and in a half-precision model: a half-precision location on
        # a level 167 cells wide is off by up to a third of a cell. An offset of a few cells is not.
        multiplied = autocast_dtype(query, self.sampling_offsets.weight)
        with full_precision(query.device):
            samples = self.num_heads, sum(self.points)
            offsets = project(query, self.sampling_offsets, multiplied).unflatten(-1, (*samples, 2))
            logits = project(query, self.attention_weights, multiplied).unflatten(-1, samples)
            reference = reference.to(offsets.dtype)
            offsets, logits = self._as_grid(offsets, logits, boxes=reference.shape[-1] == 4)
        value = value.unflatten(-1, (self.num_heads, -1))
        if self.method == "discrete":
            sampled = discrete_sampling(
                value, spatial_shapes, offsets, logits, reference, authors_clamp=self.authors_clamp
            )
        else:
            sampled = ms_deform_attn_fused(value, spatial_shapes, offsets, logits, reference)
        return self.output_proj(sampled)

    def _as_grid(self, offsets: Tensor, logits: Tensor, *, boxes: bool) -> tuple[Tensor, Tensor]:
        """Points of levels side by side, (B, Q, H, sum of points, .), as a grid with as many points on every level.

        The op divides an offset in a box by the P points of the grid, so those of levels with fewer points are made
        larger before. Points that a level does not have get no weight, so they change nothing, gradients neither.

        Returns:
            Offsets (B, Q, H, L, P, 2) and logits (B, Q, H, L * P), as the op takes them.
        """
        most = max(self.points)
        if min(self.points) == most:
            return offsets.unflatten(3, (self.num_levels, most)), logits
        placed, weighed = [], []
        for points, offset, logit in zip(self.points, offsets.split(self.points, 3), logits.split(self.points, 3)):
            offset = offset * (most / points) if boxes else offset
            placed.append(F.pad(offset, (0, 0, 0, most - points)))
            weighed.append(F.pad(logit, (0, most - points), value=-math.inf))
        return torch.stack(placed, dim=3), torch.cat(weighed, dim=3)


def project(x: Tensor, linear: nn.Linear, multiplied: torch.dtype) -> Tensor:
    """A linear layer's output (..., out) of (..., in) in float32, or float64, whose factors are of another type.

    Args:
        multiplied: the dtype of factors and of their product, to which the bias is added in float32. What bfloat16
            rounds is at most 2^-8 of each factor and of the product, float16 rounds 2^-11: of an offset of 4 cells a
            hundredth of a cell, or a thousandth.
    """
    if linear.weight.dtype == x.dtype == multiplied and multiplied in (torch.float32, torch.float64):
        return linear(x)
    dtype = torch.float64 if multiplied == torch.float64 else torch.float32
    return F.linear(x.to(multiplied), linear.weight.to(multiplied)).to(dtype) + linear.bias.to(dtype)


def _points_of_levels(num_points: int | Sequence[int], num_levels: int) -> list[int]:
    """Points of each level.

    Raises:
        ValueError: for a level without points, or not one number a level.
    """
    points = [num_points] * num_levels if isinstance(num_points, int) else list(num_points)
    if len(points) != num_levels or min(points, default=0) < 1:
        raise ValueError(
            f"MultiScaleDeformableAttention: num_points {num_points} must be at least 1 on each of {num_levels} "
            "levels: one number for all, or one for each"
        )
    return points

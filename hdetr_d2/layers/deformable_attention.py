"""The multi-scale deformable attention module around the compiled op."""

import math

import torch
from torch import Tensor, nn

from hdetr_d2.ops import ms_deform_attn_fused


class MultiScaleDeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, eq. 3).

    Every query samples ``num_points`` places a head and level around its reference and averages what it finds with
    learned weights. Parameter names are the authors'.

    Args:
        embed_dim: width C.
        num_heads: number of heads; divides ``embed_dim``.
        num_levels: number of feature levels.
        num_points: sampling points a head and level.
    """

    def __init__(self, *, embed_dim: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"MultiScaleDeformableAttention: embed_dim {embed_dim} is not a multiple of num_heads {num_heads}"
            )
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with head h looking in direction 2 pi h / H, point p at p + 1 cells, and equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * steps[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, query: Tensor, reference: Tensor, memory: Tensor, spatial_shapes: Tensor, padding: Tensor | None
    ) -> Tensor:
        """Sample the memory around the references.

        Args:
            query: (B, Q, C), the position added.
            reference: (B, Q, L, 2) as (x, y) or (B, Q, L, 4) as cxcywh, in [0, 1] of the padded level.
            memory: (B, S, C), the levels one after another, each row-major.
            spatial_shapes: (L, 2) int64, (H_l, W_l).
            padding: (B, S) bool, True on padding, or None where there is none.

        Returns:
            (B, Q, C).
        """
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        # Offsets and weights stay in float32 under autocast: a half-precision location on a level 167 cells wide is
        # off by up to a third of a cell.
        with torch.autocast(device_type=query.device.type, enabled=False):
            query = query if query.dtype == torch.float64 else query.float()
            offsets = self.sampling_offsets(query).unflatten(-1, (self.num_heads, self.num_levels, self.num_points, 2))
            logits = self.attention_weights(query).unflatten(-1, (self.num_heads, self.num_levels * self.num_points))
            reference = reference.to(query.dtype)
        value = value.unflatten(-1, (self.num_heads, -1))
        return self.output_proj(ms_deform_attn_fused(value, spatial_shapes, offsets, logits, reference))

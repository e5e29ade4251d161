"""Multi-scale deformable attention in plain PyTorch: the oracle of the tests, and the fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fused_inputs_to_sampling", "ms_deform_attn_fused_reference", "ms_deform_attn_reference"]


def ms_deform_attn_reference(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, eq. 3) by ``grid_sample``.

    Args:
        value: (B, S, H, D) projected features of all levels one after another, S = sum of H_l * W_l.
        spatial_shapes: (L, 2) int64, (H_l, W_l) of each level; if on CUDA, its values are copied to the host.
        sampling_locations: (B, Q, H, L, P, 2) as (x, y), in [0, 1] over the level; a location outside reads zeros.
        attention_weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * D) in the dtype of ``value``: bilinear samples (zero padding, corners not aligned), weighted, summed.
    """
    batch, _, heads, width = value.shape
    queries, levels, points = sampling_locations.shape[1], sampling_locations.shape[3], sampling_locations.shape[4]
    shapes: list[list[int]] = spatial_shapes.tolist()
    # grid_sample's backward rejects empty tensors, and a sum over no level has no dtype of its own
    if min(batch, queries, heads, width, levels, points) == 0:
        nothing = value.sum() * 0 + (sampling_locations.sum() + attention_weights.sum()).to(value.dtype) * 0
        return value.new_zeros(batch, queries, heads * width) + nothing
    kernel_dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    per_head = value.to(kernel_dtype).permute(0, 2, 3, 1).flatten(0, 1)
    grids = (2 * sampling_locations.to(kernel_dtype) - 1).transpose(1, 2).flatten(0, 1)
    weights = attention_weights.to(kernel_dtype).transpose(1, 2).flatten(0, 1)
    output = per_head.new_zeros(batch * heads, width, queries)
    for level, feature in enumerate(per_head.split([h * w for h, w in shapes], dim=2)):
        height, level_width = shapes[level]
        if height * level_width == 0:
            continue
        sampled = F.grid_sample(
            feature.unflatten(2, (height, level_width)),
            _finite(grids[:, :, level]),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        output = output + (sampled * weights[:, None, :, level]).sum(-1)
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


def fused_inputs_to_sampling(
    spatial_shapes: Tensor, sampling_offsets: Tensor, attention_logits: Tensor, reference_points: Tensor
) -> tuple[Tensor, Tensor]:
    """The sampling locations and attention weights that :func:`ms_deform_attn_fused_reference` samples with.

    Shapes as there. Returns (B, Q, H, L, P, 2) locations in [0, 1] and (B, Q, H, L, P) weights.
    """
    levels, points = sampling_offsets.shape[3:5]
    centres = reference_points[:, :, None, :, None, :2]
    if reference_points.shape[-1] == 2:
        sizes = spatial_shapes.flip(-1).clamp(min=1).to(sampling_offsets)
        locations = centres + sampling_offsets / sizes[:, None, :]
    else:
        locations = centres + sampling_offsets / points * reference_points[:, :, None, :, None, 2:] * 0.5
    weights = attention_logits.softmax(-1).unflatten(-1, (levels, points))
    return locations, weights


def ms_deform_attn_fused_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    reference_points: Tensor,
) -> Tensor:
    """Multi-scale deformable attention from offsets, logits and reference points (Deformable DETR, appendix A.2).

    Args:
        value: (B, S, H, D), as in :func:`ms_deform_attn_reference`.
        spatial_shapes: (L, 2) int64, (H_l, W_l).
        sampling_offsets: (B, Q, H, L, P, 2) raw (x, y) offsets: pixels of the level with 2-d reference points, P-ths
            of half the box's width and height with 4-d ones.
        attention_logits: (B, Q, H, L * P) raw; their softmax over all levels and points weighs the samples.
        reference_points: (B, Q, L, 2) centres (x, y), or (B, Q, L, 4) boxes cxcywh, in [0, 1] of the padded level.

    Returns:
        (B, Q, H * D) in the dtype of ``value``.
    """
    kernel_dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    locations, weights = fused_inputs_to_sampling(
        spatial_shapes,
        sampling_offsets.to(kernel_dtype),
        attention_logits.to(kernel_dtype),
        reference_points.to(kernel_dtype),
    )
    return ms_deform_attn_reference(value, spatial_shapes, locations, weights)


def _finite(grid: Tensor) -> Tensor:
    """Move NaN, infinite and absurdly far grid coordinates (B, Q, P, 2) to a place outside that can be indexed."""
    return torch.where(grid.abs() <= 100, grid, torch.full_like(grid, -100))

"""Deformable attention that reads single cells."""

import torch
from torch import Tensor

from hdetr_d2.ops.reference import fused_inputs_to_sampling


def discrete_sampling(
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    reference_points: Tensor,
    *,
    authors_clamp: bool = False,
) -> Tensor:
    """Multi-scale deformable attention without interpolation (RT-DETRv2, section 3.1).

    A location (x, y) in [0, 1] reads the cell in column trunc(x W + 0.5) and row trunc(y H + 0.5), or the nearest one
    of the level, so that nothing is outside. That is what the published weights were trained with, although the centre
    of column i is at (i + 0.5) / W, half a cell from where it is looked for.

    Args:
        value, spatial_shapes, sampling_offsets, attention_logits, reference_points: as ``ms_deform_attn_fused`` has
            them.
        authors_clamp: keep columns as well as rows within the number of rows, as the authors' code does: on a wide
            level nothing beyond column H - 1 is ever read. On square levels there is no difference. A tall level, which
            their code cannot read, keeps columns within its columns.

    Returns:
        (B, Q, H * D) in the dtype of ``value``. No gradient reaches locations, hence none offsets and references.
    """
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    locations, weights = fused_inputs_to_sampling(
        spatial_shapes, sampling_offsets.to(dtype), attention_logits.to(dtype), reference_points.to(dtype)
    )
    shapes = spatial_shapes.to(value.device)[:, None]  # (L, 1, 2), beside (B, Q, H, L, P)
    rows, columns = shapes.unbind(-1)
    # What is far outside, or not a number, must become an integer.
    cells = (locations.detach().nan_to_num().clamp(-1, 2) * shapes.flip(-1) + 0.5).to(torch.int64)
    last_column = torch.minimum(rows, columns) if authors_clamp else columns
    x = torch.minimum(cells[..., 0], last_column - 1).clamp(min=0)
    y = torch.minimum(cells[..., 1], rows - 1).clamp(min=0)
    sizes = rows * columns
    token = sizes.cumsum(0) - sizes + y * columns + x
    return _weighted_tokens(value, token, weights)


def _weighted_tokens(value: Tensor, token: Tensor, weights: Tensor) -> Tensor:
    """Sum of tokens (B, S, H, D) at indices (B, Q, H, L, P), weighted, (B, Q, H * D)."""
    batch, queries, heads = token.shape[:3]
    width = value.shape[-1]
    index = token.transpose(1, 2).reshape(batch, heads, -1, 1).expand(-1, -1, -1, width)
    sampled = value.transpose(1, 2).gather(2, index).reshape(batch, heads, queries, -1, width)
    weights = weights.transpose(1, 2).reshape(batch, heads, queries, 1, -1)
    output = weights @ sampled.to(weights.dtype)
    return output.squeeze(3).transpose(1, 2).reshape(batch, queries, heads * width).to(value.dtype)

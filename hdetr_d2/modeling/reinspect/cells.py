"""Cells of a map, and the objects that each must predict."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cell_centres(shape: Sequence[int], stride: int, device: torch.device) -> Tensor:
    """(R, 2) x and y in pixels of the cells of an (H, W) map, row by row."""
    y, x = ((torch.arange(length, device=device) + 0.5) * stride for length in shape)
    return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=-1)


def cell_targets(boxes: Tensor, centres: Tensor, *, window: float, limit: int) -> tuple[Tensor, Tensor]:
    """The objects that each cell must predict: the nearest of those that touch the window around its centre.

    Args:
        boxes: (M, 4) cxcywh in pixels.
        centres: (R, 2) of the cells, in pixels.
        window: side of the window in pixels.
        limit: most objects of a cell.

    Returns:
        Boxes (R, limit, 4) with centres relative to that of the cell, those of each cell from top to bottom and then
        from left to right; and how many of them there are, (R,) int64. The rest is zero.
    """
    by_row = boxes[:, 0].argsort(stable=True)
    boxes = boxes[by_row[boxes[by_row, 1].argsort(stable=True)]]
    relative = torch.cat([boxes[:, :2] - centres[:, None], boxes[:, 2:].expand(len(centres), -1, -1)], dim=-1)
    near = (relative[..., :2].abs() < 0.5 * (relative[..., 2:] + window)).all(-1)
    distance = relative[..., :2].norm(dim=-1).masked_fill(~near, torch.inf)
    count = near.sum(1).clamp(max=limit)
    nearest = distance.argsort(dim=1, stable=True)[:, :limit]
    # The chosen ones in reading order, which is the order of their indices, then the others.
    chosen = torch.arange(nearest.shape[1], device=boxes.device) < count[:, None]
    index = nearest.masked_fill(~chosen, len(boxes)).sort(dim=1).values
    padded = F.pad(relative, (0, 0, 0, 1))
    result = padded.gather(1, index[..., None].expand(-1, -1, 4))
    return F.pad(result, (0, 0, 0, limit - result.shape[1])), count

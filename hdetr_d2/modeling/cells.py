"""Cells of the maps of a padded batch: where they are, and which of them are image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdetr_d2.structures import Memory
from hdetr_d2.transfer import to_device


def valid_pixels(
    padded_size: tuple[int, int], image_sizes: Sequence[tuple[int, int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which rows and columns of each image are not padding, which is below and to the right.

    Args:
        padded_size: (H, W) in pixels of the batch.
        image_sizes: (h, w) of each image in it.
        device: of the result.

    Returns:
        (B, H) and (B, W) float32, 0 or 1.
    """
    (sizes,) = to_device([torch.tensor([tuple(size) for size in image_sizes])], device)
    rows, columns = (torch.arange(length, device=device) for length in padded_size)
    return (rows < sizes[:, :1]).float(), (columns < sizes[:, 1:]).float()


def nearest(axis: Tensor, size: int) -> Tensor:
    """A (B, length) mask of 0 and 1 at another resolution, (B, size), by the rule of the authors' interpolation."""
    return F.interpolate(axis[:, None], size=size, mode="nearest")[:, 0]


def outside(rows: Tensor, columns: Tensor) -> Tensor:
    """Which cells are padding, (B, H * W) bool, row-major, by which rows (B, H) and columns (B, W) are not: 0 or 1."""
    return (rows[:, :, None] * columns[:, None]).flatten(1) == 0


def is_padded(padded_size: tuple[int, int], image_sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether an image of the batch is smaller than the batch."""
    return any(tuple(size) != tuple(padded_size) for size in image_sizes)


def padded_cells(
    padded_size: tuple[int, int],
    image_sizes: Sequence[tuple[int, int]],
    map_size: tuple[int, int],
    device: torch.device,
) -> Tensor | None:
    """Which cells of a map are padding.

    Args:
        padded_size, image_sizes, device: as of ``valid_pixels``.
        map_size: (H_l, W_l) of the map.

    Returns:
        (B, H_l * W_l) bool, row-major; None where no image of the batch is padded.
    """
    if not is_padded(padded_size, image_sizes):
        return None
    rows, columns = (
        nearest(axis, size) for axis, size in zip(valid_pixels(padded_size, image_sizes, device), map_size)
    )
    return outside(rows, columns)


def cell_centres(memory: Memory) -> Tensor:
    """Centres of all cells, in [0, 1] of the un-padded image; those of the memory, where it has them.

    Returns:
        (B, S, 2) as (x, y), float32; above 1 on padding.
    """
    if memory.centres is not None:
        return memory.centres
    (sizes,) = to_device([memory.spatial_shapes.flip(1)], memory.valid_ratios.device)
    # Rounded to whole cells, because a centre may lie just on the margin where proposals begin to be valid.
    valid_cells = (memory.valid_ratios * sizes).round()
    grids, counts = [], []
    for level, (height, width) in enumerate(memory.level_sizes):
        x, y = (torch.arange(n, device=valid_cells.device, dtype=torch.float32) for n in (width, height))
        grids.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1))
        counts.append(valid_cells[:, level, None].expand(-1, height * width, -1))
    return (torch.cat(grids) + 0.5) / torch.cat(counts, dim=1)

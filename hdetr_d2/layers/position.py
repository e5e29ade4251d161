"""Sine embeddings of image positions and of boxes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def sine_embedding(
    coordinates: Tensor, *, num_features: int = 128, temperature: float = 10000.0, scale: float = 2 * math.pi
) -> Tensor:
    """Sines and cosines of scalar coordinates at geometrically spaced frequencies (DETR, appendix).

    Args:
        coordinates: (...), any unit; with the default ``scale``, [0, 1] is one period of the lowest frequency.
        num_features: how many features a coordinate gets; even. Even features are sines, odd ones cosines.
        temperature: the ratio of the lowest to the highest wavelength.
        scale: what coordinates are multiplied by.

    Returns:
        (..., num_features), float32.
    """
    index = torch.arange(num_features, device=coordinates.device, dtype=torch.float32)
    wavelength = temperature ** (2 * (index // 2) / num_features)
    phase = coordinates.float().unsqueeze(-1) * scale / wavelength
    return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=-1).flatten(-2)


def box_sine_embedding(boxes: Tensor, *, num_features: int = 128, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of each box coordinate, in the order of the coordinates.

    Args:
        boxes: (..., D) in [0, 1], such as cxcywh.

    Returns:
        (..., D * num_features), float32.
    """
    return sine_embedding(boxes, num_features=num_features, temperature=temperature).flatten(-2)


class SinePositionEmbedding(nn.Module):
    """Two-dimensional sine embedding of the cells of feature maps, from the un-padded image's point of view.

    A cell's coordinate is its index among the valid rows (columns), divided by how many are valid.

    Args:
        num_features: features of one axis; the output has twice as many, y first.
        temperature: 10000 in DETR, Deformable-DETR and H-DETR, 20 in DAB, DN and the authors' DINO; or that of y and
            that of x.
        offset: added to the 1-based index: -0.5 (cell centres) in the deformable models, 0 in the dense ones.
    """

    eps = 1e-6  # the authors'; a map without a valid row or column gives finite numbers

    def __init__(
        self, *, num_features: int = 128, temperature: float | Sequence[float] = 10000.0, offset: float = -0.5
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.temperature = temperature
        of_axes = [temperature] * 2 if isinstance(temperature, (int, float)) else list(temperature)
        if len(of_axes) != 2:
            raise ValueError(f"SinePositionEmbedding: temperature is one number or those of y and x, got {temperature}")
        self._temperatures = of_axes
        self.offset = offset

    def _axis(self, valid: Sequence[Tensor], temperature: float) -> Sequence[Tensor]:
        """The embedding (B, H_l, num_features) of each level's rows or columns (B, H_l), all of them at once."""
        index = [of_level.float().cumsum(1) for of_level in valid]
        last = torch.cat([of_level[:, -1:].expand_as(of_level) for of_level in index], dim=1)
        coordinate = (torch.cat(index, dim=1) + self.offset) / (last + self.eps)
        embedded = sine_embedding(coordinate, num_features=self.num_features, temperature=temperature)
        return embedded.split([of_level.shape[1] for of_level in index], dim=1)

    def forward(self, valid_rows: Tensor, valid_columns: Tensor) -> Tensor:
        """Embed one level.

        Args:
            valid_rows: (B, H), False or 0 on padding; padding is below and to the right, so rows and columns say all.
            valid_columns: (B, W).

        Returns:
            (B, H * W, 2 * num_features), float32, row-major. The axes are embedded apart, which costs H + W sines
            instead of H * W; what padded cells get differs from the authors' code, where nothing reads it either.
        """
        return self.of_levels([valid_rows], [valid_columns])[0]

    def of_levels(self, valid_rows: Sequence[Tensor], valid_columns: Sequence[Tensor]) -> list[Tensor]:
        """Embed several levels, each as ``forward`` does."""
        rows, columns = (
            self._axis(valid, temperature)
            for valid, temperature in zip((valid_rows, valid_columns), self._temperatures)
        )
        return [_grid(y, x) for y, x in zip(rows, columns)]


def _grid(y: Tensor, x: Tensor) -> Tensor:
    """What rows (B, H, F) and columns (B, W, F) are embedded as, side by side for each cell (B, H * W, 2 F)."""
    shape = y.shape[0], y.shape[1], x.shape[1], y.shape[2]
    return torch.cat([y[:, :, None].expand(shape), x[:, None].expand(shape)], dim=-1).flatten(1, 2)

"""RT-DETR's hybrid encoder: attention within the coarsest map, convolutions across maps."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import sine_embedding
from hdetr_d2.layers.conv import GELAN, ConvNorm, CSPRep, SeparatedDownsample
from hdetr_d2.structures import Memory

from .cells import padded_cells
from .transformer import Encoder

FUSIONS: Mapping[str, Callable[..., nn.Module]] = {"csp_rep": CSPRep, "gelan": GELAN}
"""Blocks that fuse two maps, by the name of the kind of fusion."""


class HybridEncoder(nn.Module):
    """A neck of intra-scale attention on the coarsest map and cross-scale fusion of all maps (RT-DETR, section 4.2).

    Every backbone feature is projected to one width; tokens of the coarsest map attend to one another (AIFI); then
    maps are fused from coarse to fine and back from fine to coarse by blocks of convolutions (CCFF).

    Args:
        in_channels: channels of each backbone feature, finest first; strides double from one to the next.
        in_features: names of those features.
        encoder: of the coarsest map's tokens; one dense layer with GELU in RT-DETR.
        out_channels: width of all maps, the ``embed_dim`` of ``encoder``; a multiple of 4.
        fusion: ``"csp_rep"``, with strided 3x3 convolutions between maps and activations everywhere (RT-DETR); or
            ``"gelan"``, with separated ones, and without activations between the blocks (D-FINE).
        expansion: width inside the fusion blocks in parts of ``out_channels``, of GELAN in parts of half of it; 0.5 in
            the small models.
        depth_mult: the fusion blocks have round(3 * depth_mult) RepVGG blocks.
        activation: of the convolutions.
        temperature: of the positions.
        authors_positions: add the authors' table of positions as it is. On square maps it is the right one; on others
            it gives most tokens another cell's position, so released weights, which were trained on square images,
            are better used without it on others.
        attended: which maps' tokens attend to one another, 0 the finest, -1 the coarsest; each has its own layers.
        mask_padding: keep attention off cells that are padding, where there is padding. The authors squash images to
            squares and have none.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_features: Sequence[str],
        encoder: Encoder,
        out_channels: int = 256,
        fusion: Literal["csp_rep", "gelan"] = "csp_rep",
        expansion: float = 1.0,
        depth_mult: float = 1.0,
        activation: str = "silu",
        temperature: float = 10000.0,
        authors_positions: bool = False,
        attended: Sequence[int] = (-1,),
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(in_features):
            raise ValueError(
                f"HybridEncoder: in_channels {list(in_channels)} and in_features {list(in_features)} do not fit: "
                "one channel count a feature"
            )
        if out_channels % 4:
            raise ValueError(f"HybridEncoder: out_channels {out_channels} is not a multiple of 4, as positions need")
        if fusion not in FUSIONS:
            raise ValueError(f"HybridEncoder: fusion {fusion!r} is none of {sorted(FUSIONS)}")
        self.in_features = tuple(in_features)
        self.num_levels = len(in_features)
        self.temperature = temperature
        self.authors_positions = authors_positions
        self.mask_padding = mask_padding
        self.input_proj = nn.ModuleList(
            ConvNorm(in_channels=channels, out_channels=out_channels) for channels in in_channels
        )
        self.attended = tuple(attended)
        self.encoder = encoder
        self.further_encoders = nn.ModuleList(copy.deepcopy(encoder) for _ in self.attended[1:])
        steps = range(len(in_channels) - 1)
        plain = fusion == "gelan"
        project = partial(ConvNorm, in_channels=out_channels, out_channels=out_channels)
        between = None if plain else activation
        self.laterals = nn.ModuleList(project(activation=between) for _ in steps)
        self.downsamples = nn.ModuleList(
            SeparatedDownsample(channels=out_channels)
            if plain
            else project(kernel_size=3, stride=2, activation=activation)
            for _ in steps
        )
        block = partial(
            FUSIONS[fusion],
            in_channels=2 * out_channels,
            out_channels=out_channels,
            num_blocks=round(3 * depth_mult),
            expansion=expansion,
            activation=activation,
        )
        self.top_down, self.bottom_up = (nn.ModuleList(block() for _ in steps) for _ in range(2))

    def forward(
        self,
        features: Mapping[str, Tensor],
        padded_size: tuple[int, int],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """Encode a batch.

        Args:
            features: by name, (B, C_i, H_i, W_i).
            padded_size: (H, W) in pixels of the batch that the features were computed from.
            image_sizes: (h, w) of each image in it.

        Returns:
            One map (B, C, H_i, W_i) a feature, finest first.
        """
        maps = [project(features[name]) for project, name in zip(self.input_proj, self.in_features)]
        for level, layers in zip(self.attended, (self.encoder, *self.further_encoders)):
            maps[level] = self._attend(maps[level], padded_size, image_sizes, layers)
        fused = [maps[-1]]  # coarsest first
        for lateral, block, finer in zip(self.laterals, self.top_down, maps[-2::-1]):
            fused[-1] = lateral(fused[-1])
            upsampled = F.interpolate(fused[-1], size=finer.shape[-2:], mode="nearest")
            fused.append(block(torch.cat([upsampled, finer], dim=1)))
        outputs = [fused.pop()]
        for downsample, block in zip(self.downsamples, self.bottom_up):
            outputs.append(block(torch.cat([downsample(outputs[-1]), fused.pop()], dim=1)))
        return outputs

    def _attend(
        self,
        cells: Tensor,
        padded_size: tuple[int, int],
        image_sizes: Sequence[tuple[int, int]],
        layers: nn.Module | None = None,
    ) -> Tensor:
        """Attention among the cells of a map, (B, C, H, W) -> (B, C, H, W), by ``encoder`` or by other layers."""
        height, width = cells.shape[-2:]
        padding = None
        if self.mask_padding:
            padding = padded_cells(padded_size, image_sizes, (height, width), cells.device)
        memory = Memory(
            tokens=cells.flatten(2).transpose(1, 2),
            positions=self._positions(height, width, cells),
            padding=padding,
            level_sizes=((height, width),),
            valid_ratios=torch.ones(1, 1, 2, device=cells.device),  # dense layers do not look at places
        )
        return (layers or self.encoder)(memory).transpose(1, 2).unflatten(2, (height, width))

    def _positions(self, height: int, width: int, like: Tensor) -> Tensor:
        """Sines and cosines of every cell's row, then of its column: (H * W, C), in the dtype of ``like``."""
        cell = torch.arange(height * width, device=like.device)
        row_length = height if self.authors_positions else width
        row = cell // row_length
        place = torch.stack([row, cell - row * row_length], dim=-1)  # no %, which has no form in ONNX of dynamic sizes
        waves = sine_embedding(place, num_features=like.shape[1] // 2, temperature=self.temperature, scale=1.0)
        # (H * W, 2, C / 2) with sines and cosines in turn; here all sines come first
        return waves.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(1).to(like.dtype)

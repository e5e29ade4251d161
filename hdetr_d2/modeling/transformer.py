"""Encoder, query source, decoder and heads as one module."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hdetr_d2.layers import SinePositionEmbedding
from hdetr_d2.structures import Memory, Predictions

from .decoder import DeformableDecoder
from .encoder import DeformableEncoder
from .heads import PredictionHeads
from .padding import is_padded, nearest, valid_pixels
from .queries import QuerySource


class Transformer(nn.Module):
    """From feature maps to predictions.

    Args:
        position_embedding: of the cells of a map.
        encoder: tokens to tokens.
        query_source: where queries come from.
        decoder: queries to predictions.
        heads: class and box heads.
        embed_dim: width C.
        num_levels: feature levels; each has a learned embedding besides its positions.
    """

    def __init__(
        self,
        *,
        position_embedding: SinePositionEmbedding,
        encoder: DeformableEncoder,
        query_source: QuerySource,
        decoder: DeformableDecoder,
        heads: PredictionHeads,
        embed_dim: int = 256,
        num_levels: int = 4,
    ) -> None:
        super().__init__()
        self.position_embedding = position_embedding
        self.encoder = encoder
        self.query_source = query_source
        self.decoder = decoder
        self.heads = heads
        self.level_embed = nn.Parameter(torch.randn(num_levels, embed_dim))

    def forward(
        self, maps: Sequence[Tensor], padded_size: tuple[int, int], image_sizes: Sequence[tuple[int, int]]
    ) -> tuple[dict[str, Predictions], Predictions | None]:
        """Detect.

        Args:
            maps: one (B, C, H_l, W_l) a level, finest first.
            padded_size: (H, W) in pixels of the batch that the maps were computed from.
            image_sizes: (h, w) of each image in it; padding is below and to the right.

        Returns:
            Predictions by group (in evaluation the primary group's last layer alone) and, in training, the encoder's
            proposals where there are any.
        """
        memory = self.flatten(maps, padded_size, image_sizes)
        memory = replace(memory, tokens=self.encoder(memory))
        groups, proposals = self.query_source(memory, self.heads, training=self.training)
        return self.decoder(groups, memory, self.heads, all_layers=self.training), proposals

    def flatten(
        self, maps: Sequence[Tensor], padded_size: tuple[int, int], image_sizes: Sequence[tuple[int, int]]
    ) -> Memory:
        """Maps of all levels as one sequence, with positions and padding; arguments as in ``forward``."""
        device = maps[0].device
        valid = valid_pixels(padded_size, image_sizes, device)
        tokens, positions, paddings, ratios, shapes = [], [], [], [], []
        for level, feature in enumerate(maps):
            height, width = feature.shape[-2:]
            rows, columns = (nearest(axis, size) for axis, size in zip(valid, (height, width)))
            tokens.append(feature.flatten(2).transpose(1, 2))
            positions.append(self.position_embedding(rows, columns) + self.level_embed[level])
            paddings.append(~(rows[:, :, None] & columns[:, None]).flatten(1))
            ratios.append(torch.stack([columns.float().mean(1), rows.float().mean(1)], dim=-1))
            shapes.append((height, width))
        return Memory(
            tokens=torch.cat(tokens, dim=1),
            positions=torch.cat(positions, dim=1),
            padding=torch.cat(paddings, dim=1) if is_padded(padded_size, image_sizes) else None,
            spatial_shapes=torch.tensor(shapes, dtype=torch.int64),
            valid_ratios=torch.stack(ratios, dim=1),
        )

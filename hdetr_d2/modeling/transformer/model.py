"""Encoder, query source, decoder and heads as one module."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hdetr_d2.layers import SinePositionEmbedding
from hdetr_d2.structures import Memory, Predictions, Targets
from hdetr_d2.supervision import GroupSpec

from ..cells import cell_centres, is_padded, nearest, outside, valid_pixels
from ..denoising import DenoisingQueries
from ..heads import PredictionHeads
from ..queries import QuerySource
from .decoder import Decoder
from .encoder import Encoder


class Transformer(nn.Module):
    """From feature maps to predictions.

    Args:
        position_embedding: of the cells of a map; None where neither encoder nor decoder asks for positions (RT-DETR).
        encoder: tokens to tokens; None where the neck has encoded them (RT-DETR).
        query_source: where queries come from.
        decoder: queries to predictions.
        heads: class and box heads.
        denoising: makes queries from noised targets in training; None for no denoising.
        embed_dim: width C.
        num_levels: feature levels.
        level_embedding: whether each level has a learned embedding besides its positions.
    """

    def __init__(
        self,
        *,
        position_embedding: SinePositionEmbedding | None,
        encoder: Encoder | None,
        query_source: QuerySource,
        decoder: Decoder,
        heads: PredictionHeads,
        denoising: DenoisingQueries | None = None,
        embed_dim: int = 256,
        num_levels: int = 4,
        level_embedding: bool = True,
    ) -> None:
        super().__init__()
        self.position_embedding = position_embedding
        self.encoder = encoder
        self.query_source = query_source
        self.decoder = decoder
        self.heads = heads
        self.denoising = denoising
        embeds = level_embedding and position_embedding is not None
        self.num_levels = num_levels if embeds else None  # else it takes as many as come
        self.level_embed = nn.Parameter(torch.randn(num_levels, embed_dim)) if embeds else None

    def add_groups(self, specs: Sequence[GroupSpec]) -> None:
        """Add training's groups; called once, when the model is built."""
        self.query_source.add_groups(specs)
        for spec in specs:
            if spec.queries == "own":
                self.heads.add_encoder_pair(spec.name)

    def forward(
        self,
        maps: Sequence[Tensor],
        padded_size: tuple[int, int],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[Targets] | None = None,
        *,
        all_layers: bool | None = None,
        columns: Tensor | None = None,
    ) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
        """Detect.

        Args:
            maps: one (B, C, H_l, W_l) a level, finest first.
            padded_size: (H, W) in pixels of the batch that the maps were computed from.
            image_sizes: (h, w) of each image in it; padding is below and to the right.
            targets: one an image, which denoising makes queries from in training.
            all_layers: whether to predict in all decoder layers or in the last; None does so in training.
            columns: (C',) int64, the classes that the decoder predicts; None for all. Proposals have all classes.

        Returns:
            Predictions by group (in evaluation the primary group's alone) and, in training, the encoder's proposals by
            the group whose ranking they are.
        """
        memory = self.flatten(maps, padded_size, image_sizes)
        if self.encoder is not None:
            memory = replace(memory, tokens=self.encoder(memory))
        groups, proposals = self.query_source(memory, self.heads, training=self.training)
        if self.denoising is not None:
            noised = targets if self.training else None
            groups = self.denoising.join(groups, noised, self.query_source.position_of)
        all_layers = self.training if all_layers is None else all_layers
        return self.decoder(groups, memory, self.heads, all_layers=all_layers, columns=columns), proposals

    def flatten(
        self, maps: Sequence[Tensor], padded_size: tuple[int, int], image_sizes: Sequence[tuple[int, int]]
    ) -> Memory:
        """Maps of all levels as one sequence, with positions and padding; arguments as in ``forward``."""
        batch, device = maps[0].shape[0], maps[0].device
        dtype = next(self.parameters()).dtype  # and not that of the maps, which under autocast may be another
        padded = is_padded(padded_size, image_sizes)
        # Without padding all images are alike; and a batch of any size can be exported.
        valid = valid_pixels(padded_size, image_sizes if padded else [padded_size], device)
        sizes = [feature.shape[-2:] for feature in maps]
        rows, columns = ([nearest(axis, size[i]) for size in sizes] for i, axis in enumerate(valid))
        positions: list[Tensor] = []
        if self.position_embedding is not None:
            positions = [position.to(dtype) for position in self.position_embedding.of_levels(rows, columns)]
        if self.level_embed is not None:
            positions = [position + embedded for position, embedded in zip(positions, self.level_embed.unbind(0))]
        ratios = [x.mean(1) for row, column in zip(rows, columns) for x in (column, row)]
        memory = Memory(
            tokens=torch.cat([feature.flatten(2).transpose(1, 2) for feature in maps], dim=1),
            positions=torch.cat(positions, dim=1).expand(batch, -1, -1) if positions else None,
            padding=torch.cat([outside(*level) for level in zip(rows, columns)], dim=1) if padded else None,
            level_sizes=tuple((height, width) for height, width in sizes),
            valid_ratios=torch.stack(ratios, dim=1).unflatten(1, (-1, 2)).expand(batch, -1, -1),
        )
        return replace(memory, centres=cell_centres(memory))

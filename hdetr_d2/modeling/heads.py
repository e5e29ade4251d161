"""Class and box heads."""

import copy
import math

import torch
from torch import nn

from hdetr_d2.layers import MLP


class PredictionHeads(nn.Module):
    """One class and one box head for every decoder layer, and one pair for the encoder's proposals.

    All class heads start alike, and so do all box heads (Deformable DETR's code).

    Args:
        embed_dim: width of the input.
        num_classes: outputs of a class head.
        num_layers: decoder layers.
        shared: one pair of heads for all decoder layers, which is right where boxes are not refined.
        encoder: ``None`` for no proposals, ``"own"`` for own heads, ``"shared"`` for the decoder's shared pair.
        encoder_classes: outputs of the encoder's own class head: None is ``num_classes``, of which only channel 0 is
            read; 1 is that channel alone.
        initial_size: whether the heads must give boxes a first size because references are points; their width and
            height then start at sigmoid(-2) of the image.
        prior: probability of every class at the start.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_classes: int = 80,
        num_layers: int = 6,
        shared: bool = False,
        encoder: str | None = "own",
        encoder_classes: int | None = None,
        initial_size: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        if encoder not in (None, "own", "shared"):
            raise ValueError(f'PredictionHeads: encoder must be None, "own" or "shared", got {encoder!r}')
        if encoder == "shared" and not shared:
            raise ValueError('PredictionHeads: encoder="shared" needs shared=True; there is no one pair to share')
        class_head = nn.Linear(embed_dim, num_classes)
        nn.init.constant_(class_head.bias, -math.log((1 - prior) / prior))
        box_head = MLP(in_features=embed_dim, hidden_features=embed_dim, out_features=4, num_layers=3)
        box_head.start_at(torch.zeros(4))
        count = 1 if shared else num_layers
        self.class_embed = nn.ModuleList(copy.deepcopy(class_head) for _ in range(count))
        self.bbox_embed = nn.ModuleList(copy.deepcopy(box_head) for _ in range(count))
        if initial_size:
            self.of_layer(0)[1].start_at(torch.tensor([0.0, 0.0, -2.0, -2.0]))
        self.encoder = encoder
        if encoder == "own":
            self.encoder_class_embed = copy.deepcopy(class_head)
            self.encoder_bbox_embed = copy.deepcopy(box_head)
            if encoder_classes is not None and encoder_classes != num_classes:
                self.encoder_class_embed = nn.Linear(embed_dim, encoder_classes)
                nn.init.constant_(self.encoder_class_embed.bias, -math.log((1 - prior) / prior))

    def of_layer(self, layer: int) -> tuple[nn.Linear, MLP]:
        """Class and box head of a decoder layer."""
        index = min(layer, len(self.class_embed) - 1)
        return self.class_embed[index], self.bbox_embed[index]  # type: ignore[return-value]

    def of_encoder(self) -> tuple[nn.Linear, MLP]:
        """Class and box head of the encoder's proposals."""
        if self.encoder == "own":
            return self.encoder_class_embed, self.encoder_bbox_embed
        return self.of_layer(0)

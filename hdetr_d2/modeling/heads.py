"""Class and box heads."""

import copy
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import MLP

from .building import require_class_count
from .priors import mean_prior, start_at


class ClassHead(nn.Linear):
    """A linear layer that can compute some of its outputs only."""

    def forward(self, input: Tensor, columns: Tensor | None = None) -> Tensor:
        """(..., C) -> (..., K), or (..., C') of the classes ``columns`` (C',) int64."""
        if columns is None:
            return super().forward(input)
        return F.linear(input, self.weight[columns], self.bias[columns])


class LayerHeads(NamedTuple):
    """Class and box head of one layer."""

    class_head: ClassHead
    box_head: MLP

    def classes(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits (..., K) from (..., C), or (..., C') of the classes ``columns``."""
        logits: Tensor = self.class_head(x, columns)
        return logits

    def offset(self, x: Tensor) -> Tensor:
        """Logit offsets of boxes (..., 4) from (..., C), float32 whatever the precision."""
        return self.box_head(x).float()


class PredictionHeads(nn.Module):
    """One class and one box head for every decoder layer, and one pair for the encoder's proposals.

    All class heads start alike, and so do all box heads (Deformable DETR's code).

    Args:
        embed_dim: width of the input.
        num_classes: K, outputs of a class head; one more for "no object" where ``score`` is ``"softmax"``.
        num_layers: decoder layers.
        shared: one pair of heads for all decoder layers: where boxes are not refined, and in DAB, DN and DINO.
        shared_boxes: the same of the box heads alone, where they differ from the class heads; None is ``shared``.
        encoder: ``None`` for no proposals, ``"own"`` for own heads, ``"shared"`` for the decoder's shared pair, or
            ``"own class"`` or ``"own box"`` where one head is its own and the other shared (DINO).
        encoder_classes: outputs of the encoder's own class head: None is ``num_classes``, of which ``TwoStageQueries``
            reads channel 0 or, with ``rank_by="best"``, all; 1 is one channel for "object or not".
        initial_size: whether the heads must give boxes a first size because references are points; their width and
            height then start at sigmoid(-2) of the image.
        prior: probability of every class at the start, or of each (``frequency_prior``); sigmoid scores only. The
            encoder's own class head starts at their mean.
        score: ``"sigmoid"``, or ``"softmax"`` over classes and "no object" (DETR).
        zero_boxes: whether box heads start with offset 0 to the reference; DETR's, which has none, starts at random.
        activation: of the box heads' MLP.

    Attributes:
        makes_distributions: whether boxes are distributions of their edges, which the decoder's refinement must know.
    """

    makes_distributions: ClassVar[bool] = False

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_classes: int = 80,
        num_layers: int = 6,
        shared: bool = False,
        shared_boxes: bool | None = None,
        encoder: Literal["own", "shared", "own class", "own box"] | None = "own",
        encoder_classes: int | None = None,
        initial_size: bool = False,
        prior: float | Sequence[float] = 0.01,
        score: Literal["sigmoid", "softmax"] = "sigmoid",
        zero_boxes: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        require_class_count(num_classes)
        shared_boxes = shared if shared_boxes is None else shared_boxes
        if encoder not in (None, "own", "shared", "own class", "own box"):
            raise ValueError(
                f'PredictionHeads: encoder must be None, "own", "shared", "own class" or "own box", got {encoder!r}'
            )
        if encoder not in (None, "own") and not (shared and shared_boxes):
            raise ValueError(f'PredictionHeads: encoder="{encoder}" needs shared=True; there is no one pair to share')
        if score not in ("sigmoid", "softmax"):
            raise ValueError(f'PredictionHeads: score must be "sigmoid" or "softmax", got {score!r}')
        self.num_classes = num_classes
        self.shared = {kind for kind, one in (("class", shared), ("box", shared_boxes)) if one}
        outputs = num_classes if score == "sigmoid" else num_classes + 1
        class_head = ClassHead(embed_dim, outputs)
        if score == "sigmoid":
            start_at(class_head, prior)
        box_head = MLP(
            in_features=embed_dim, hidden_features=embed_dim, out_features=4, num_layers=3, activation=activation
        )
        if zero_boxes:
            box_head.start_at(torch.zeros(4))
        self.class_embed = nn.ModuleList(copy.deepcopy(class_head) for _ in range(1 if shared else num_layers))
        self.bbox_embed = nn.ModuleList(copy.deepcopy(box_head) for _ in range(1 if shared_boxes else num_layers))
        if initial_size:
            self.of_layer(0)[1].start_at(torch.tensor([0.0, 0.0, -2.0, -2.0]))
        self.encoder = encoder
        self.score: Literal["sigmoid", "softmax"] = score
        self.group_class_embed = nn.ModuleDict()
        self.group_bbox_embed = nn.ModuleDict()
        if encoder in ("own", "own class"):
            self.encoder_class_embed = copy.deepcopy(class_head)
            if score == "sigmoid":
                start_at(self.encoder_class_embed, mean_prior(prior))
        if encoder in ("own", "own box"):
            self.encoder_bbox_embed = copy.deepcopy(box_head)
        if encoder in ("own", "own class") and encoder_classes is not None and encoder_classes != num_classes:
            self.encoder_class_embed = ClassHead(embed_dim, encoder_classes)
            start_at(self.encoder_class_embed, mean_prior(prior))

    @property
    def num_layers(self) -> int | None:
        """Decoder layers that have heads of their own; None where all share one pair."""
        of_layers = {"class": self.class_embed, "box": self.bbox_embed}
        counts = [len(heads) for kind, heads in of_layers.items() if kind not in self.shared]
        return counts[0] if counts else None

    def add_encoder_pair(self, group: str) -> None:
        """Give the proposals of another query group a pair of heads of their own (Mr. DETR).

        Raises:
            ValueError: where the encoder has no heads of its own to start from.
        """
        if self.encoder != "own":
            raise ValueError(
                f'PredictionHeads: group {group!r} ranks proposals of its own, which needs encoder="own", '
                f"got encoder={self.encoder!r}"
            )
        self.group_class_embed[group] = copy.deepcopy(self.encoder_class_embed)
        self.group_bbox_embed[group] = copy.deepcopy(self.encoder_bbox_embed)

    def of_layer(self, layer: int) -> LayerHeads:
        """Class and box head of a decoder layer."""
        class_head, box_head = (heads[min(layer, len(heads) - 1)] for heads in (self.class_embed, self.bbox_embed))
        return _pair(class_head, box_head)

    def of_encoder(self, group: str | None = None) -> LayerHeads:
        """Class and box head of the encoder's proposals, of all groups or of one that has its own pair."""
        if group is not None and group in self.group_class_embed:
            return _pair(self.group_class_embed[group], self.group_bbox_embed[group])
        class_head, box_head = self.of_layer(0)
        if self.encoder in ("own", "own class"):
            class_head = self.encoder_class_embed
        if self.encoder in ("own", "own box"):
            box_head = self.encoder_bbox_embed
        return LayerHeads(class_head, box_head)


def _pair(class_head: nn.Module, box_head: nn.Module) -> LayerHeads:
    return LayerHeads(cast("ClassHead", class_head), cast("MLP", box_head))

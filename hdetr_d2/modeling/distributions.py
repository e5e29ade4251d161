"""Boxes as distributions of their edges, refined from layer to layer (D-FINE, Peng et al., ICLR 2025)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from hdetr_d2.layers import MLP, xyxy_to_cxcywh
from hdetr_d2.structures import EdgeDistributions

from .heads import ClassHead, PredictionHeads
from .priors import start_at
from .transformer.gated import widened
from .transformer.refinement import Output, Place, Reading, Refinement


def bin_values(bins: int, *, up: Tensor, scale: Tensor) -> Tensor:
    """The distance that each bin of an edge stands for: D-FINE's weighting function W (section 4.1).

    Small distances are resolved finely; the first and last bin stand for twice the largest other distance.

    Args:
        bins: R, even.
        up: (1,), the largest distance but for those, in parts of ``scale``.
        scale: (1,).

    Returns:
        (R + 1,) ascending and odd about its middle, which is 0.
    """
    bound = (up * scale).abs()
    step = (bound + 1) ** (2 / (bins - 2))
    grown = step ** torch.arange(1, bins // 2, dtype=up.dtype, device=up.device) - 1
    return torch.cat([-2 * bound, -grown.flip(0), torch.zeros_like(bound), grown, 2 * bound])


def edges_to_boxes(reference: Tensor, distances: Tensor, scale: Tensor) -> Tensor:
    """Boxes whose edges are at distances from those of others.

    Args:
        reference: (..., 4) cxcywh.
        distances: (..., 4) of left, top, right and bottom, in parts of the size of the reference, ``scale`` of them.
        scale: scalar or (1,).

    Returns:
        (..., 4) cxcywh; where edges pass one another, width or height is negative.
    """
    centre, size = reference.split(2, -1)
    unit = size / scale
    low, high = ((0.5 * scale + part) * unit for part in distances.split(2, -1))
    return xyxy_to_cxcywh(torch.cat([centre - low, centre + high], -1))


class EdgeQuality(nn.Module):
    """How sure distributions are of their edges, as something added to all class logits (D-FINE's LQE).

    From the largest probabilities of each edge and their mean, as in Generalized Focal Loss V2 (Li et al., CVPR 2021).

    Args:
        largest: how many probabilities of each edge are read.
        hidden_dim: of the MLP.
        activation: of the MLP.
    """

    def __init__(self, *, largest: int = 4, hidden_dim: int = 64, activation: str = "relu") -> None:
        super().__init__()
        self.largest = largest
        self.embed = MLP(
            in_features=4 * (largest + 1),
            hidden_features=hidden_dim,
            out_features=1,
            num_layers=2,
            activation=activation,
        )
        self.embed.start_at(torch.zeros(1))

    def forward(self, edges: Tensor) -> Tensor:
        """Logits of edges (..., 4, R + 1) -> (..., 1)."""
        best = edges.softmax(-1).topk(self.largest, -1).values
        quality = torch.cat([best, best.mean(-1, keepdim=True)], -1).flatten(-2)
        added: Tensor = self.embed(quality.to(next(self.parameters()).dtype))
        return added


class DistributionHeads(PredictionHeads):
    """Heads of D-FINE: an initial box head, and for every layer one of distributions and one of their quality.

    ``up`` and ``reg_scale`` are parameters that are not trained, as checkpoints have them.

    Args:
        embed_dim, num_classes, num_layers, encoder_classes, prior, activation: as of ``PredictionHeads``; the encoder's
            pair is its own.
        bins: R, of each edge; even.
        up, reg_scale: of ``bin_values``.
        quality_activation: of ``EdgeQuality``.
        wide_from, widening: as of ``GatedDecoderLayer``.
    """

    makes_distributions = True

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_classes: int = 80,
        num_layers: int = 6,
        encoder_classes: int | None = None,
        prior: float | Sequence[float] = 0.01,
        activation: str = "relu",
        bins: int = 32,
        up: float = 0.5,
        reg_scale: float = 4.0,
        quality_activation: str = "relu",
        wide_from: int | None = None,
        widening: float = 1.0,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim,
            num_classes=num_classes,
            num_layers=0,
            encoder_classes=encoder_classes,
            prior=prior,
            activation=activation,
        )
        if bins < 4 or bins % 2:
            raise ValueError(f"DistributionHeads: bins must be even and at least 4, got {bins}")
        self.bins = bins
        self.up = nn.Parameter(torch.tensor([up]), requires_grad=False)
        self.reg_scale = nn.Parameter(torch.tensor([reg_scale]), requires_grad=False)

        def box_head(width: int, outputs: int) -> MLP:
            head = MLP(
                in_features=width, hidden_features=width, out_features=outputs, num_layers=3, activation=activation
            )
            head.start_at(torch.zeros(outputs))
            return head

        self.initial_bbox_embed = box_head(embed_dim, 4)
        for layer in range(num_layers):
            wide = wide_from is not None and layer >= wide_from
            width = round(widening * embed_dim) if wide else embed_dim
            class_head = ClassHead(width, num_classes)
            start_at(class_head, prior)
            self.class_embed.append(class_head)
            self.bbox_embed.append(box_head(width, 4 * (bins + 1)))
        self.quality_embed = nn.ModuleList(EdgeQuality(activation=quality_activation) for _ in range(num_layers))

    def for_inference(self, num_layers: int) -> None:
        """Drop what is for training alone: heads of layers beyond so many, and class heads of all but the last one."""
        for heads in (self.class_embed, self.bbox_embed, self.quality_embed):
            del heads[num_layers:]
        for heads in (self.class_embed, self.quality_embed):
            for layer in range(num_layers - 1):
                heads[layer] = nn.Identity()

    def values(self) -> Tensor:
        """The distance of each bin, (R + 1,)."""
        return bin_values(self.bins, up=self.up.float(), scale=self.reg_scale.float())


@dataclass(frozen=True)
class EdgePlace(Place):
    """A place with what later layers refine.

    Args:
        first: (B, N, 4), the box that distances are from, without gradient.
        edges: (B, N, 4, R + 1), logits of the layer before, with their graph.
        content: (B, N, C) of the layer before, without gradient.
    """

    first: Tensor
    edges: Tensor
    content: Tensor


@dataclass(frozen=True)
class DistributionRefinement(Refinement):
    """D-FINE's fine-grained distribution refinement (section 4.1).

    The first layer moves a query's box once. From there distributions of the edges are refined: each layer adds to the
    logits of the one before, and every layer's box is the mean of its distributions at the same first box.

    Args:
        eps: of the inverse sigmoid of references.
    """

    needs_distributions: ClassVar[bool] = True

    def after(self, place: Place, heads: PredictionHeads, layer: int, reading: Reading) -> tuple[Output | None, Place]:
        """As the base class says."""
        heads, content = cast("DistributionHeads", heads), reading.content
        assert place.reference is not None
        initial = None
        if isinstance(place, EdgePlace):
            first, before = place.first, place.edges
            added = content + widened(place.content, content.shape[-1])
        else:
            initial = self.boxes(place, heads.initial_bbox_embed(content).float())
            first, before, added = initial.detach(), None, content
        edges = heads.of_layer(layer).offset(added).unflatten(-1, (4, -1))
        edges = edges if before is None else edges + before
        values = heads.values()
        boxes = edges_to_boxes(first, edges.softmax(-1) @ values, heads.reg_scale)
        output = None
        if reading.wanted:
            logits = heads.of_layer(layer).classes(reading.read, reading.columns)
            output = Output(
                logits + heads.quality_embed[layer](edges),
                boxes,
                EdgeDistributions(edges, first, values, heads.reg_scale),
                None if initial is None else Output(logits, initial),
            )
        reference = boxes.detach()
        return output, EdgePlace(reference, reference, first, edges, content.detach())

    def predict(
        self, place: Place, heads: PredictionHeads, layer: int, reading: Reading, offset: Tensor | None = None
    ) -> Output:
        """As the base class says."""
        del offset
        output, _ = self.after(place, heads, layer, reading._replace(wanted=True))
        assert output is not None
        return output

"""Where queries are, layer after layer, and the boxes that offsets to these places make."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hdetr_d2.layers import inverse_sigmoid
from hdetr_d2.structures import EdgeDistributions

from ..heads import PredictionHeads


@dataclass(frozen=True)
class Place:
    """Where the queries of a layer are; None where they have no place.

    Args:
        reference: (B, N, 2) points or (B, N, 4) cxcywh in [0, 1] of the un-padded image, what the layer reads.
        live: what the layer's boxes are offset from: ``reference``, or the same numbers with the graph of the layer
            before.
    """

    reference: Tensor | None
    live: Tensor | None


class Output(NamedTuple):
    """What one layer predicts of the queries of a route.

    Args:
        logits: (B, N, K).
        boxes: (B, N, 4).
        edges: of those boxes, ``logits`` without a dimension for layers; None where boxes are numbers.
        initial: what the layer predicts besides, before it refines (D-FINE's first layer); None in all others.
    """

    logits: Tensor
    boxes: Tensor
    edges: EdgeDistributions | None = None
    initial: "Output | None" = None


class Reading(NamedTuple):
    """What predictions of a layer are made from.

    Args:
        content: (B, N, C), what the layer gives.
        read: (B, N, C), what classes and boxes are predicted from: the content, or its norm.
        wanted: whether predictions are asked for; else only the next layer's place is.
        last: whether there is no next layer.
        columns: (C',) int64, the classes to predict; None for all.
    """

    content: Tensor
    read: Tensor
    wanted: bool
    last: bool
    columns: Tensor | None = None


@dataclass(frozen=True)
class Refinement:
    """What becomes of references from one decoder layer to the next.

    Args:
        moves: a layer's boxes are the next layer's references (Deformable DETR, appendix A.4); otherwise references
            stay and every layer's boxes are relative to them.
        looks_twice: the loss of a layer also trains the refinement of the layer before it (DINO, section 3.5). Outputs
            are the same, gradients are not. Needs ``moves``.
        eps: of the inverse sigmoid of references.
    """

    moves: bool = True
    looks_twice: bool = False
    eps: float = 1e-5

    needs_distributions: ClassVar[bool] = False
    """Whether it is of heads that predict distributions of edges."""

    def after(self, place: Place, heads: PredictionHeads, layer: int, reading: Reading) -> tuple[Output | None, Place]:
        """What a layer predicts, where it is wanted, and the place of the next layer's queries.

        Args:
            place: of the layer's queries.
            heads: of all layers.
            layer: its index.
            reading: what it has made of the queries.
        """
        content, read, wanted, last, _ = reading
        pair = heads.of_layer(layer)
        offset = pair.offset(content) if self.moves and not last else None
        output = self.predict(place, heads, layer, reading, offset if read is content else None) if wanted else None
        if last:
            return output, place
        # Refinement goes on from the raw output, predictions may be made from its norm.
        return output, self.step(place, offset, output.boxes if output is not None and read is content else None)

    def predict(
        self, place: Place, heads: PredictionHeads, layer: int, reading: Reading, offset: Tensor | None = None
    ) -> Output:
        """What a layer predicts, as in ``after``; ``offset`` is that of the box head, where it is known."""
        pair = heads.of_layer(layer)
        offset = pair.offset(reading.read) if offset is None else offset
        return Output(pair.classes(reading.read, reading.columns), self.boxes(place, offset))

    def start(self, reference: Tensor | None) -> Place:
        """The place of the first layer's queries: references (B, N, 2 or 4), or None where they have no place."""
        return Place(reference, reference)

    def boxes(self, place: Place, offset: Tensor) -> Tensor:
        """Boxes (B, N, 4) cxcywh in [0, 1] at logit offsets (B, N, 4) to a layer's place; a point moves the centre."""
        return self._shifted(place.live, offset)

    def step(self, place: Place, offset: Tensor | None, boxes: Tensor | None = None) -> Place:
        """The place of the next layer's queries.

        Args:
            place: of this layer's.
            offset: (B, N, 4) logit offsets that this layer's outputs give; None where places stay.
            boxes: what ``boxes`` has made of the same offsets, where it was asked; often they are the next references.
        """
        if not self.moves:
            return place
        assert offset is not None
        if boxes is None or place.live is not place.reference:
            boxes = self._shifted(place.reference, offset)
        reference = boxes.detach()
        return Place(reference, boxes if self.looks_twice else reference)

    def _shifted(self, reference: Tensor | None, offset: Tensor) -> Tensor:
        if reference is None:
            return offset.sigmoid()
        logit = inverse_sigmoid(reference, self.eps)
        if reference.shape[-1] == 2:
            return torch.cat([offset[..., :2] + logit, offset[..., 2:]], dim=-1).sigmoid()
        return (offset + logit).sigmoid()

"""Positional queries that a decoder makes from the references of each layer."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hdetr_d2.layers import MLP, box_sine_embedding
from hdetr_d2.structures import Memory


class PositionalQuery(NamedTuple):
    """Where a query is.

    Args:
        position: (B, N, C), added to the content.
        spatial: (B, N, C), what conditional attention compares with the positions of tokens; None elsewhere.
    """

    position: Tensor
    spatial: Tensor | None = None


class QueryPosition(nn.Module, ABC):
    """Makes positional queries; one module for all layers."""

    needs_dim: ClassVar[int] = 4
    """Numbers of a reference that it reads: 4 of a box, or 2 of a point, which a box has too."""

    makes_places: ClassVar[bool] = False
    """Whether it makes ``PositionalQuery.spatial``, for layers that compare places."""

    @abstractmethod
    def forward(self, reference: Tensor, content: Tensor, layer: int, memory: Memory) -> PositionalQuery:
        """Embed references.

        Args:
            reference: (B, N, 4) cxcywh, or (B, N, 2) points, in [0, 1] of the un-padded image.
            content: (B, N, C) of the queries before the layer.
            layer: its index; 0 is the first.
            memory: of which the valid ratios are read.
        """


def reference_sine(reference: Tensor, num_features: int) -> Tensor:
    """Sine embedding of boxes with y before x (DAB-DETR's code): (..., D) -> (..., D * num_features).

    Args:
        reference: (..., 4) cxcywh or (..., 2) points.
        num_features: of each number.
    """
    ordered = torch.cat([reference[..., 1:2], reference[..., :1], reference[..., 2:]], dim=-1)
    return box_sine_embedding(ordered, num_features=num_features)


class SineQueryPosition(QueryPosition):
    """An MLP of the sine embedding of a box on the first padded level (DAB-Deformable-DETR, DINO).

    Args:
        embed_dim: width C.
        scaled: whether it is multiplied by an MLP of the content in all layers but the first (DAB; DINO has dropped
            it).
    """

    def __init__(self, *, embed_dim: int = 256, scaled: bool = False) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.embed = MLP(in_features=2 * embed_dim, hidden_features=embed_dim, out_features=embed_dim, num_layers=2)
        self.scale = None
        if scaled:
            self.scale = MLP(in_features=embed_dim, hidden_features=embed_dim, out_features=embed_dim, num_layers=2)

    def forward(self, reference: Tensor, content: Tensor, layer: int, memory: Memory) -> PositionalQuery:
        """As the base class says."""
        on_level = reference * memory.valid_ratios[:, None, 0].repeat(1, 1, 2)
        position = self.embed(reference_sine(on_level, self.num_features).to(content.dtype))
        if self.scale is not None and layer > 0:
            position = position * self.scale(content)
        return PositionalQuery(position)


class PointQueryPosition(QueryPosition):
    """What Conditional DETR compares with the positions of tokens.

    That is the sine embedding of the query's point, scaled by an MLP of the content in all layers but the first
    (section 3.3). What is added to contents are the positions that the query source has learned.

    Args:
        embed_dim: width C.
    """

    needs_dim = 2
    makes_places = True

    def __init__(self, *, embed_dim: int = 256) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.scale = MLP(in_features=embed_dim, hidden_features=embed_dim, out_features=embed_dim, num_layers=2)

    def forward(self, reference: Tensor, content: Tensor, layer: int, memory: Memory) -> PositionalQuery:
        """As the base class says; of a box the centre is read."""
        del memory
        embedded = reference_sine(reference[..., :2], self.num_features).to(content.dtype)
        return PositionalQuery(embedded, embedded * self.scale(content) if layer > 0 else embedded)


class ConditionalQueryPosition(QueryPosition):
    """Positional queries of DAB-DETR.

    For content, an MLP of the box; for conditional attention, the sine embedding of its centre, scaled by the content
    and modulated by its width and height (section 4.3).

    Args:
        embed_dim: width C.
        scale: what the embedding is multiplied by: ``"content"``, C numbers that an MLP makes of the content in all
            layers but the first; ``"scalar"``, one such number; or ``"layer"``, C numbers that each layer learns.
        num_layers: of the decoder; read for ``scale="layer"``.
        modulated: whether width and height modulate it.
    """

    makes_places = True

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        scale: Literal["content", "scalar", "layer"] = "content",
        num_layers: int = 6,
        modulated: bool = True,
    ) -> None:
        super().__init__()
        if scale not in ("content", "scalar", "layer"):
            raise ValueError(f'ConditionalQueryPosition: scale must be "content", "scalar" or "layer", got {scale!r}')
        self.embed_dim = embed_dim
        self.num_layers = num_layers if scale == "layer" else None
        self.embed = MLP(in_features=2 * embed_dim, hidden_features=embed_dim, out_features=embed_dim, num_layers=2)
        self.scale: nn.Module
        if scale == "layer":
            self.scale = nn.Embedding(num_layers, embed_dim)
        else:
            factors = 1 if scale == "scalar" else embed_dim
            self.scale = MLP(in_features=embed_dim, hidden_features=embed_dim, out_features=factors, num_layers=2)
        self.size = None
        if modulated:
            self.size = MLP(in_features=embed_dim, hidden_features=embed_dim, out_features=2, num_layers=2)

    def forward(self, reference: Tensor, content: Tensor, layer: int, memory: Memory) -> PositionalQuery:
        """As the base class says; dense attention sees no levels, so valid ratios are not read."""
        del memory
        embedded = reference_sine(reference, self.embed_dim // 2)
        spatial = embedded[..., : self.embed_dim]
        if isinstance(self.scale, nn.Embedding):
            spatial = spatial * self.scale.weight[layer]
        elif layer > 0:
            spatial = spatial * self.scale(content)
        if self.size is not None:
            # The layer guesses the object's size; a wide box attends more loosely along x.
            ratio = self.size(content).float().sigmoid() / reference[..., 2:]
            y, x = spatial.chunk(2, dim=-1)
            spatial = torch.cat([y * ratio[..., 1:], x * ratio[..., :1]], dim=-1)
        return PositionalQuery(self.embed(embedded.to(content.dtype)), spatial.to(content.dtype))


class CoordinateQueryPosition(QueryPosition):
    """An MLP of the box coordinates themselves (RT-DETR).

    Args:
        embed_dim: width C.
        hidden_dim: of the MLP; 512 in RT-DETR, 256 in DEIM's.
        num_layers: of the MLP; 2 in RT-DETR, 3 in DEIM.
        activation: of the MLP.
        limit: largest absolute value of what it gives, 10 in D-FINE; None for any.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        hidden_dim: int = 512,
        num_layers: int = 2,
        activation: str = "relu",
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.limit = limit
        self.embed = MLP(
            in_features=4,
            hidden_features=hidden_dim,
            out_features=embed_dim,
            num_layers=num_layers,
            activation=activation,
        )

    def forward(self, reference: Tensor, content: Tensor, layer: int, memory: Memory) -> PositionalQuery:
        """As the base class says; neither content nor memory is read."""
        del layer, memory
        position = self.embed(reference.to(content.dtype))
        return PositionalQuery(position if self.limit is None else position.clamp(-self.limit, self.limit))

"""Queries that are the same for every image."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import nn

from hdetr_d2.layers import MLP
from hdetr_d2.layers.precision import full_precision
from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import GroupSpec

from ..heads import PredictionHeads
from .base import QuerySource


class ImageFreeQueries(QuerySource):
    """A source that learns its queries whole and makes no proposals.

    Args:
        num_queries: of the primary group.
        embed_dim: width C.
    """

    def __init__(self, *, num_queries: int, embed_dim: int) -> None:
        super().__init__(num_queries=num_queries)
        self.embed_dim = embed_dim
        self.embed = nn.ParameterDict()

    @abstractmethod
    def _group(self, spec: GroupSpec, batch: int) -> QueryGroup:
        """The queries that are learned for a group, ``batch`` times."""

    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], dict[str, Predictions]]:
        """As the base class says; there are no proposals."""
        del heads
        specs = [self.specs[0], *self._of_kind("next")] if training else self.specs[:1]
        groups = [self._group(spec, memory.tokens.shape[0]) for spec in specs]
        return groups + (self._repeated(groups[0]) if training else []), {}


class LearnedQueries(ImageFreeQueries):
    """Learned positions, and what is made from them.

    Args:
        num_queries: of the primary group.
        embed_dim: width C.
        references: predict a reference point from each position (Deformable DETR, one stage); without it queries have
            no place (DETR).
        contents: learn a content for each position; None where there are references. Others start at zero.
        reference_layers: linear layers that predict a point; 2 in Conditional DETR.
    """

    makes_positions = True

    def __init__(
        self,
        *,
        num_queries: int = 300,
        embed_dim: int = 256,
        references: bool = True,
        contents: bool | None = None,
        reference_layers: int = 1,
    ) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        self.contents = references if contents is None else contents
        self.reference_dim = 2 if references else 0
        self.reference_points: nn.Module | None = None
        if references and reference_layers == 1:
            self.reference_points = nn.Linear(embed_dim, 2)
            nn.init.xavier_uniform_(self.reference_points.weight)
            nn.init.zeros_(self.reference_points.bias)
        elif references:
            self.reference_points = MLP(
                in_features=embed_dim, hidden_features=embed_dim, out_features=2, num_layers=reference_layers
            )
        self._add_parameters(self.specs[0])

    def _add_parameters(self, spec: GroupSpec) -> None:
        if spec.queries == "next":
            # One table of (position, content) a group, as the authors' query_embed.
            width = 2 * self.embed_dim if self.contents else self.embed_dim
            self.embed[spec.name] = nn.Parameter(torch.randn(spec.num_queries, width))

    def _group(self, spec: GroupSpec, batch: int) -> QueryGroup:
        table = self.embed[spec.name]
        table = table.expand(batch, *table.shape)
        position, content = table[..., : self.embed_dim], table[..., self.embed_dim :]
        if not self.contents:
            content = torch.zeros_like(position)
        reference = None
        if self.reference_points is not None:
            with full_precision(table.device):
                reference = self.reference_points(position)
                reference = (reference if reference.dtype == torch.float64 else reference.float()).sigmoid()
        return QueryGroup(name=spec.name, content=content, reference=reference, position=position, route=spec.route)


class AnchorQueries(ImageFreeQueries):
    """Learned boxes; the decoder makes positional queries from them (DAB-DETR).

    Args:
        num_queries: of the primary group.
        embed_dim: width C.
        content: ``"zeros"`` (DAB-DETR; DN-DETR, whose denoising part adds the embedding of no label), ``"learned"``
            (DAB-Deformable-DETR), or ``"flagged"``, learned but for a last channel that is 0 (DN-Deformable-DETR).
        num_patterns: learned contents, each of which all anchors are combined with; 0 for none (Anchor DETR, DAB-DETR).
    """

    def __init__(
        self,
        *,
        num_queries: int = 300,
        embed_dim: int = 256,
        content: Literal["zeros", "learned", "flagged"] = "zeros",
        num_patterns: int = 0,
    ) -> None:
        super().__init__(num_queries=num_queries, embed_dim=embed_dim)
        if content not in ("zeros", "learned", "flagged"):
            raise ValueError(f'AnchorQueries: content must be "zeros", "learned" or "flagged", got {content!r}')
        self.content = content
        self.anchors = nn.ParameterDict()
        self.patterns = nn.Parameter(torch.randn(num_patterns, embed_dim)) if num_patterns else None
        self._add_parameters(self.specs[0])

    def _add_parameters(self, spec: GroupSpec) -> None:
        if spec.queries == "next":
            self.anchors[spec.name] = nn.Parameter(torch.randn(spec.num_queries, 4))
            if self.content in ("learned", "flagged"):
                width = self.embed_dim - (self.content == "flagged")
                self.embed[spec.name] = nn.Parameter(torch.randn(spec.num_queries, width))

    def _group(self, spec: GroupSpec, batch: int) -> QueryGroup:
        anchors = self.anchors[spec.name]
        content = anchors.new_zeros(spec.num_queries, self.embed_dim)
        if spec.name in self.embed:
            learned = self.embed[spec.name]
            content = torch.cat([learned, content[:, learned.shape[1] :]], dim=1)
        if self.patterns is not None:
            content = (self.patterns[:, None] + content).flatten(0, 1)
            anchors = anchors.repeat(len(self.patterns), 1)
        return QueryGroup(
            name=spec.name,
            content=content.expand(batch, *content.shape),
            reference=anchors.float().sigmoid().expand(batch, *anchors.shape),
            position=None,
            route=spec.route,
        )

"""Queries that are the same for every image."""

import torch
from torch import nn

from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import GroupSpec

from ..heads import PredictionHeads
from .base import QuerySource


class LearnedQueries(QuerySource):
    """Learned content and position, and reference points predicted from the position (Deformable DETR, one stage).

    Args:
        num_queries: of the primary group.
        embed_dim: width C.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256) -> None:
        super().__init__(num_queries=num_queries)
        self.embed_dim = embed_dim
        self.embed = nn.ParameterDict()
        self.reference_points = nn.Linear(embed_dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        self._add_parameters(self.specs[0])

    def _add_parameters(self, spec: GroupSpec) -> None:
        # One table of (position, content) a group, as the authors' query_embed.
        self.embed[spec.name] = nn.Parameter(torch.randn(spec.num_queries, 2 * self.embed_dim))

    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], Predictions | None]:
        """As the base class says; there are no proposals."""
        del heads
        batch = memory.tokens.shape[0]
        groups = []
        for spec in self.specs if training else self.specs[:1]:
            table = self.embed[spec.name]
            position, content = table.expand(batch, *table.shape).split(self.embed_dim, dim=-1)
            with torch.autocast(device_type=table.device.type, enabled=False):
                reference = self.reference_points(position).sigmoid()
            groups.append(QueryGroup(name=spec.name, content=content, reference=reference, position=position))
        return groups, None

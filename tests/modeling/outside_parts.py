"""Parts as a user writes them in a file outside the package; tests copy this file away and name it in configs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hdetr_d2.layers import GroupView
from hdetr_d2.matching import HungarianMatcher, Matcher
from hdetr_d2.modeling import DecoderLayer, LayerOutput, PositionalQuery, PredictionHeads, QuerySource
from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import PRIMARY, GroupSpec, Rule, Supervision


class GridQueries(QuerySource):
    """Fixed points on a diagonal, or nothing, with learned positions and contents."""

    makes_positions = True

    def __init__(self, *, num_queries: int, embed_dim: int, points: bool = True) -> None:
        super().__init__(num_queries=num_queries)
        self.reference_dim = 2 if points else 0
        self.embed = nn.Parameter(torch.randn(2, num_queries, embed_dim))

    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], dict[str, Predictions]]:
        batch = memory.tokens.shape[0]
        position, content = self.embed[:, None].expand(-1, batch, -1, -1)
        along = torch.linspace(0.1, 0.9, position.shape[1])[None, :, None].expand(batch, -1, 2)
        return [QueryGroup(PRIMARY, content, along if self.reference_dim else None, position)], {}


class MeanLayer(DecoderLayer):
    """Adds the mean of the memory to every query."""

    needs_token_positions = False

    def __init__(self, *, embed_dim: int, **others: Any) -> None:
        super().__init__()
        self.project = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        content: Tensor,
        query: PositionalQuery,
        reference: Tensor | None,
        memory: Memory,
        views: Sequence[GroupView],
        route: str = "",
    ) -> LayerOutput:
        return LayerOutput(content + self.project(query.position + memory.tokens.mean(1, keepdim=True)))


class SamplingLayer(MeanLayer):
    """Asks for references."""

    samples = True


class PlacedLayer(MeanLayer):
    """Asks for places."""

    needs_places = True


class PositionedLayer(MeanLayer):
    """Asks for positions of tokens, as the base class does unless told."""

    needs_token_positions = True


class InOrder(Matcher):
    """Query i learns from target i; reads no scores."""

    one_to_one = True

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.arange(min(len(boxes), len(labels)))
        return index, index


class ByProbability(InOrder):
    """As if it read probabilities of a softmax."""

    score = "softmax"


class Alternating(Supervision):
    """One matcher in the first half of training and another in the second; further queries of a kind."""

    changes_at = (0.5,)

    def __init__(self, *, first: Matcher, second: Matcher | None = None, queries: str | None = None) -> None:
        super().__init__()
        self.matchers = first, second or HungarianMatcher()
        self.queries = queries

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        return () if self.queries is None else (GroupSpec("more", 4, queries=self.queries, route="more"),)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        return Rule(self.matchers[progress >= 0.5])


class Undeclared(nn.Module):
    """A layer that is no DecoderLayer."""

    def __init__(self, *, embed_dim: int, **others: Any) -> None:
        super().__init__()
        self.project = nn.Linear(embed_dim, embed_dim)

"""Where queries come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import PRIMARY, GroupSpec

from ..heads import PredictionHeads


class QuerySource(nn.Module, ABC):
    """Makes the groups of queries of a step.

    Args:
        num_queries: of the primary group.

    Attributes:
        reference_dim: numbers of a query's reference: 4 of a box, 2 of a point, 0 where queries have no place.
        makes_positions: whether it makes positional queries, so that the decoder need not.
        makes_proposals: whether it makes proposals in training, for the encoder's loss.
        keeps_anchors: whether proposals have anchors that they can be matched by.
        keeps_apart: whether the proposals that the encoder's loss sees were chosen to be apart from one another.
    """

    reference_dim: int = 4
    makes_positions: bool = False
    makes_proposals: bool = False
    keeps_anchors: bool = False
    keeps_apart: bool = False

    def __init__(self, *, num_queries: int) -> None:
        super().__init__()
        if num_queries < 1:
            raise ValueError(f"{type(self).__name__}: num_queries must be at least 1, got {num_queries}")
        self.specs = [GroupSpec(name=PRIMARY, num_queries=num_queries)]

    def add_groups(self, specs: Sequence[GroupSpec]) -> None:
        """Add training's groups; called once, when the model is built."""
        taken = {spec.name for spec in self.specs}
        for spec in specs:
            if spec.name in taken:
                raise ValueError(f"{type(self).__name__}: there is a query group {spec.name!r} already")
            self.specs.append(spec)
            self._add_parameters(spec)

    def _add_parameters(self, spec: GroupSpec) -> None:
        """Create what a group learns; nothing unless a source says otherwise."""

    def _of_kind(self, queries: str) -> list[GroupSpec]:
        """The extra groups whose queries are of a kind that ``GroupSpec`` names."""
        return [spec for spec in self.specs[1:] if spec.queries == queries]

    def _repeated(self, primary: QueryGroup) -> list[QueryGroup]:
        """The groups that are the primary group's queries on other routes."""
        return [replace(primary, name=spec.name, route=spec.route) for spec in self._of_kind("same")]

    def position_of(self, reference: Tensor) -> Tensor | None:
        """Positional queries (B, n, C) of queries that other parts add at boxes (B, n, 4).

        None where the decoder makes them.
        """
        del reference
        return None

    @abstractmethod
    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], dict[str, Predictions]]:
        """Make queries.

        Args:
            memory: encoded tokens.
            heads: the encoder's pair among them is for proposals.
            training: whether to make the extra groups, and proposals for the loss.

        Returns:
            The groups, the primary one first, and, where ``training`` and the source makes any, the proposals (one
            layer of them) of each ranking by the name of its group.
        """

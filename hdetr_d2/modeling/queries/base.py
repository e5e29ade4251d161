"""Where queries come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from hdetr_d2.structures import Memory, Predictions, QueryGroup
from hdetr_d2.supervision import PRIMARY, GroupSpec

from ..heads import PredictionHeads


class QuerySource(nn.Module, ABC):
    """Makes the groups of queries of a step.

    Args:
        num_queries: of the primary group.
    """

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

    @abstractmethod
    def forward(
        self, memory: Memory, heads: PredictionHeads, *, training: bool
    ) -> tuple[list[QueryGroup], Predictions | None]:
        """Make queries.

        Args:
            memory: encoded tokens.
            heads: the encoder's pair among them is for proposals.
            training: whether to make the extra groups, and proposals for the loss.

        Returns:
            The groups, the primary one first, and the proposals (one layer of them) where ``training`` and the
            source makes any.
        """

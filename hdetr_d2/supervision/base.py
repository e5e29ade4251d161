"""What a supervision scheme decides."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from hdetr_d2.matching import HungarianMatcher, Matcher, MatchingCost

PRIMARY = "one2one"
"""Name of the group of queries that inference uses."""


@dataclass(frozen=True)
class GroupSpec:
    """A group of queries that exists in training only.

    Args:
        name: suffix of its loss keys and of its learned parameters.
        num_queries: how many.
    """

    name: str
    num_queries: int


@dataclass(frozen=True)
class Rule:
    """How one group is supervised in one decoder layer.

    Args:
        matcher: which query learns from which target.
        weight: what its losses are multiplied by.
        normaliser: its losses are divided by this times the number of targets, and at least by 1.
    """

    matcher: Matcher
    weight: float = 1.0
    normaliser: float = 1.0


class Supervision(ABC):
    """Which groups training adds, and by which rule each (group, decoder layer) learns.

    A scheme holds no tensors and no state: what a step does depends on its arguments alone.

    Args:
        cost: the matching cost of all its matchers; None is Deformable DETR's.
    """

    def __init__(self, *, cost: MatchingCost | None = None) -> None:
        self.one_to_one = Rule(matcher=HungarianMatcher(cost=cost))

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        """The groups that training adds to the primary one."""
        return ()

    @abstractmethod
    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """The rule of a group in a decoder layer.

        Args:
            group: ``PRIMARY`` or the name of an extra group.
            layer: 0 is the first decoder layer.
            num_layers: how many decoder layers there are.
            progress: how much of training is done, in [0, 1).
        """

    def encoder_rule(self, progress: float) -> Rule:
        """The rule of the encoder's proposals: one-to-one, as in the authors' hybrid branch."""
        del progress
        return self.one_to_one

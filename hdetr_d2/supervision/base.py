"""What a supervision scheme decides."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from hdetr_d2.matching import CostMatcher, HungarianMatcher, Matcher, MatchingCost

from .description import Description, describe

PRIMARY = "one2one"
"""Name of the group of queries that inference uses."""


@dataclass(frozen=True)
class GroupSpec:
    """A group of queries that exists in training only.

    Args:
        name: suffix of its loss keys and of its learned parameters.
        num_queries: how many.
        queries: which they are: ``"next"``, queries of their own, in two-stage models the next ranks of the one ranking
            (H-DETR); ``"same"``, the primary group's over again, which must take another route
            (``Supervision.check``); ``"own"``, the best of a ranking by encoder heads of their own (Mr. DETR).
        route: the variant of the decoder's layers that they pass; "" is the plain one.
    """

    name: str
    num_queries: int
    queries: str = "next"
    route: str = ""

    def __post_init__(self) -> None:
        if self.queries not in ("next", "same", "own"):
            raise ValueError(f'GroupSpec {self.name!r}: queries must be "next", "same" or "own", got {self.queries!r}')


@dataclass(frozen=True)
class Rule:
    """How one group is supervised in one decoder layer.

    Args:
        matcher: which query learns from which target.
        weight: what its losses are multiplied by.
        normaliser: its losses are divided by this times the number of targets, and at least by 1.
        class_factor: what its class loss is multiplied by besides (MS-DETR).
        on_anchors: match the anchors of proposals and not the boxes predicted from them (Mr. DETR, MS-DETR); of the
            encoder's rule alone.
        fill_from: another group of the same queries, whose matches in the same layer are added for queries that have
            none here, while a query that has several keeps the last (MS-DETR's use_indices_merge); None for none.
    """

    matcher: Matcher
    weight: float = 1.0
    normaliser: float = 1.0
    class_factor: float = 1.0
    on_anchors: bool = False
    fill_from: str | None = None


class Supervision(ABC):
    """Which groups training adds, and by which rule each (group, decoder layer) learns.

    A scheme holds no tensors and no state: what a step does depends on its arguments alone.

    Args:
        cost: the matching cost of all its matchers; None is Deformable DETR's.
    """

    changes_at: tuple[float, ...] = ()
    """Where in training the rules change; between two of these they depend on group and layer alone."""

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

    def check(self, *, num_layers: int) -> None:
        """Refuse a scheme that a model of so many decoder layers should not be trained with; models call it when built.

        Raises:
            ValueError: two groups have one name, or are the same queries on the same route of a decoder layer. Where
                one of them is matched one-to-one and the other one-to-many, they teach the same prediction opposite
                things: Mr. DETR measured 41.6 AP so, against 47.6 without the one-to-many part (its ablation).
        """
        specs = (GroupSpec(name=PRIMARY, num_queries=0, queries="same"), *self.extra_groups())
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise ValueError(f"{type(self).__name__}: groups must have different names, got {names}")
        routes: dict[str, str] = {}
        for spec in specs:
            if spec.queries != "same":
                continue
            other = routes.setdefault(spec.route, spec.name)
            if other != spec.name:
                self._refuse(other, spec.name, num_layers)
        for progress in (0.0, *self.changes_at):
            for name in names:
                for layer in range(num_layers):
                    self.rule(name, layer, num_layers, progress)

    def _refuse(self, first: str, second: str, num_layers: int) -> None:
        """Say why two groups must not be the same queries on the same route."""
        reason = "which would only repeat its predictions"
        for layer in range(num_layers):
            kinds = [self.rule(name, layer, num_layers, 0.0).matcher for name in (first, second)]
            one, other = (isinstance(kind, CostMatcher) and kind.copies == 1 for kind in kinds)
            if one != other:
                reason = (
                    f"and decoder layer {layer + 1} would be taught one-to-one and one-to-many matching of the same "
                    "predictions by the same heads, which costs 6 AP (Mr. DETR, 41.6 against 47.6)"
                )
                break
        raise ValueError(
            f"{type(self).__name__}: group {second!r} is the queries of {first!r} on the same route, {reason}; give it "
            "queries of its own, as HybridBranch does, or a route of its own"
        )

    def describe(self, *, num_queries: int, num_layers: int, num_targets: int = 7) -> Description:
        """How many queries learn from a target, by group, layer and part of training, and how their losses count.

        Args:
            num_queries: of the primary group.
            num_layers: decoder layers.
            num_targets: objects of an image; 7 is COCO's mean.

        Returns:
            What ``print`` shows as a table.
        """
        groups = [(PRIMARY, num_queries), *((spec.name, spec.num_queries) for spec in self.extra_groups())]
        return describe(self, groups, num_layers=num_layers, num_targets=num_targets)

"""What a supervision scheme decides."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from hdetr_d2.arguments import ArgumentError, check_whole
from hdetr_d2.matching import CostMatcher, HungarianMatcher, MatchingCost

from .description import Description, describe
from .rule import PRIMARY, GroupSpec, Rule


class Supervision(ABC):
    """Which groups training adds, and by which rule each (group, decoder layer) learns.

    A scheme holds no tensors and no state: what a step does depends on its arguments alone.

    Args:
        cost: the matching cost of all its matchers; None is Deformable DETR's.
    """

    changes_at: tuple[float, ...] = ()
    """Where in training the rules change; between two of these they depend on group and layer alone."""
    needs_proposals: bool = False
    """Whether it is of the encoder's proposals, which only two-stage models have."""

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

    def proposal_rule(self, group: str, progress: float) -> Rule:
        """The rule of the proposals of one ranking: that of all, unless a scheme says otherwise.

        Args:
            group: the first group whose ranking it is.
            progress: as of ``rule``.
        """
        del group
        return self.encoder_rule(progress)

    def check(self, *, num_layers: int) -> None:
        """Refuse a scheme that a model of so many decoder layers should not be trained with; models call it when built.

        Raises:
            ArgumentError: two groups have one name, or are the same queries on the same route of a decoder layer. Where
                one of them is matched one-to-one and the other one-to-many, they teach the same prediction opposite
                things: Mr. DETR measured 41.6 AP so, against 47.6 without the one-to-many part (its ablation).
        """
        specs = self.extra_groups()
        names = [PRIMARY, *(spec.name for spec in specs)]
        if len(set(names)) < len(names):
            raise ArgumentError(f"{type(self).__name__}: groups must have different names, got {names}")
        taken = {"": PRIMARY}
        for spec in specs:
            if spec.queries == "same" and taken.setdefault(spec.route, spec.name) != spec.name:
                self._refuse(taken[spec.route], spec.name, num_layers)
        for group in names:
            list(self._rules(group, num_layers))

    def check_queries(self, *, num_queries: int, num_layers: int) -> None:
        """Refuse a scheme that gives one target more queries than a group has; models call it when built.

        Args:
            num_queries: of the primary group.
            num_layers: decoder layers.

        Raises:
            ArgumentError: naming group, k and queries.
        """
        sizes = {PRIMARY: num_queries} | {spec.name: spec.num_queries for spec in self.extra_groups()}
        for group, size in sizes.items():
            for rule in self._rules(group, num_layers):
                k = rule.matcher.copies if isinstance(rule.matcher, CostMatcher) else None
                if k is not None and k > size:
                    raise ArgumentError(
                        f"{type(self).__name__}: k={k} queries of one target are more than the num_queries={size} of "
                        f"group {group!r}"
                    )

    def _rules(self, group: str, num_layers: int) -> Iterator[Rule]:
        """Every rule of a group, whatever the part of training."""
        for progress in (0.0, *self.changes_at):
            for layer in range(num_layers):
                yield self.rule(group, layer, num_layers, progress)

    def _refuse(self, first: str, second: str, num_layers: int) -> None:
        """Say why two groups must not be the same queries on the same route."""
        reason = "which would only repeat its predictions"
        for layer in range(num_layers):
            kinds = [self.rule(name, layer, num_layers, 0.0).matcher for name in (first, second)]
            one, other = (kind.one_to_one for kind in kinds)
            if one != other:
                reason = (
                    f"and decoder layer {layer + 1} would be taught one-to-one and one-to-many matching of the same "
                    "predictions by the same heads, which costs 6 AP (Mr. DETR, 41.6 against 47.6)"
                )
                break
        raise ArgumentError(
            f"{type(self).__name__}: group {second!r} is the queries of {first!r} on the same route, {reason}; give it "
            "queries of its own, as HybridBranch does, or a route of its own"
        )

    def describe(
        self,
        *,
        num_queries: int,
        num_layers: int,
        num_targets: int = 7,
        taps: Sequence[str] = (),
        united: bool = False,
    ) -> Description:
        """How many queries learn from a target, by group, layer and part of training, and how their losses count.

        Args:
            num_queries: of the primary group.
            num_layers: decoder layers.
            num_targets: objects of an image; 7 is COCO's mean.
            taps: names of the predictions that layers make between their attentions from the primary group's queries
                (``Decoder.tap_group``, MS-DETR): a scheme rules on them but does not add them.
            united: whether the criterion unites matches (``unite_matches``, D-FINE); says then which.

        Returns:
            What ``print`` shows as a table.
        """
        check_whole(self, 1, num_queries=num_queries, num_layers=num_layers, num_targets=num_targets)
        groups = [(PRIMARY, num_queries), *((spec.name, spec.num_queries) for spec in self.extra_groups())]
        groups += [(name, num_queries) for name in taps]
        return describe(self, groups, num_layers=num_layers, num_targets=num_targets, united=united)

"""Several groups of queries that all learn one-to-one."""

from dataclasses import replace
from typing import Literal

from hdetr_d2.arguments import check_choice, check_whole
from hdetr_d2.matching import MatchingCost
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .base import Supervision
from .rule import GroupSpec, Rule

FurtherQueries = Literal["next", "own"]
"""Which queries the further groups have, as in ``GroupSpec``."""


@SUPERVISION_REGISTRY.register()
class GroupwiseOneToOne(Supervision):
    """Group DETR: a target has one query in each of several groups, which share all layers and do not see one another.

    Inference uses the first group. Losses are divided by the number of targets times that of groups (section 3.2).

    Args:
        num_groups: how many, the primary one included; 11 in the paper.
        num_queries: of each group, that of the primary one.
        queries: what the further groups are, as ``GroupSpec`` has it: ``"next"``, queries of their own, or, in
            two-stage models, ``"own"``: the best of a ranking by encoder heads of their own. Next ranks would be worse
            proposals from group to group.
        cost: the matching cost; None is Deformable DETR's.
    """

    def __init__(
        self,
        *,
        num_groups: int = 11,
        num_queries: int = 300,
        queries: FurtherQueries = "next",
        cost: MatchingCost | None = None,
    ) -> None:
        super().__init__(cost=cost)
        check_whole(self, 2, "OneToOne is one group", num_groups=num_groups)
        check_whole(self, 1, num_queries=num_queries)
        check_choice(self, FurtherQueries, queries=queries)
        self.num_groups = num_groups
        self.num_queries = num_queries
        self.queries = queries
        self.grouped = replace(self.one_to_one, normaliser=float(num_groups))

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        """``group1``, ``group2`` and so on; the primary one is the first group."""
        return tuple(
            GroupSpec(name=f"group{number}", num_queries=self.num_queries, queries=self.queries)
            for number in range(1, self.num_groups)
        )

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-one for every group, in every layer."""
        return self.grouped

    def encoder_rule(self, progress: float) -> Rule:
        """One-to-one; rankings are averaged where each group has its own."""
        return self.grouped if self.queries == "own" else self.one_to_one

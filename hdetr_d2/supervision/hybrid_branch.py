"""The hybrid branch scheme."""

from hdetr_d2.matching import MatchingCost, OneToManyMatcher
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .base import PRIMARY, GroupSpec, Rule, Supervision


@SUPERVISION_REGISTRY.register()
class HybridBranch(Supervision):
    """A second group of queries learns one-to-many beside the one-to-one group (H-DETR, section 3.1).

    The extra group shares every layer and head, does not see the first one and is gone at inference.

    Args:
        num_queries: size of the extra group; 1500 in the paper's COCO models, 900 for LVIS.
        k: queries a target gets there; 6 (COCO), 5 (LVIS). Its losses are divided by k times the number of targets.
        weight: of its losses; the paper's lambda.
        cost: the matching cost; None is Deformable DETR's.
    """

    group = "one2many"

    def __init__(
        self, *, num_queries: int = 1500, k: int = 6, weight: float = 1.0, cost: MatchingCost | None = None
    ) -> None:
        super().__init__(cost=cost)
        if num_queries < 1:
            raise ValueError(f"HybridBranch: num_queries must be at least 1, got {num_queries}; OneToOne has no branch")
        self.num_queries = num_queries
        self.one_to_many = Rule(matcher=OneToManyMatcher(k=k, cost=cost), weight=weight, normaliser=k)

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        """The one-to-many group."""
        return (GroupSpec(name=self.group, num_queries=self.num_queries),)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-one for the primary group, one-to-many for the other, in every layer."""
        return self.one_to_one if group == PRIMARY else self.one_to_many

"""The hybrid branch scheme."""

from hdetr_d2.arguments import ArgumentError, check_choice, check_whole
from hdetr_d2.matching import FrequencyDemand, MatchingCost
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .groupwise import FurtherQueries
from .hybrid import EncoderMatching, HybridSupervision
from .rule import PRIMARY, GroupSpec, Rule


@SUPERVISION_REGISTRY.register()
class HybridBranch(HybridSupervision):
    """A second group of queries learns one-to-many beside the one-to-one group (H-DETR, section 3.1).

    The extra group shares every layer and head, does not see the first one and is gone at inference.

    Args:
        num_queries: size of the extra group; 1500 in the paper's COCO models, 900 for LVIS.
        k: queries a target gets there; 6 (COCO), 5 (LVIS).
        weight: of its losses; the paper's lambda.
        normaliser: its losses are divided by this times the number of targets; None is k, as in the authors' code.
        encoder: how the encoder's proposals are matched, ``"one2one"`` as in the authors' code, or ``"one2many"``.
        encoder_k: proposals a target gets with ``"one2many"``; None is k.
        cost: the matching cost; None is Deformable DETR's.
        demand: gives each class a k of its own, of which ``k`` is the mean over objects; None gives all the same.
        queries: which queries the extra group has, as ``GroupSpec`` has it: ``"next"``, or ``"own"``, of a ranking by
            encoder heads of their own, which is then matched one-to-many too, and with contents of their own
            (Relation-DETR).
        route: of the extra group; "" is the plain one.
    """

    group = "one2many"

    def __init__(
        self,
        *,
        num_queries: int = 1500,
        k: int = 6,
        weight: float = 1.0,
        normaliser: float | None = None,
        encoder: EncoderMatching = "one2one",
        encoder_k: int | None = None,
        cost: MatchingCost | None = None,
        demand: FrequencyDemand | None = None,
        queries: FurtherQueries = "next",
        route: str = "",
    ) -> None:
        super().__init__(
            k=k, weight=weight, normaliser=normaliser, encoder=encoder, encoder_k=encoder_k, cost=cost, demand=demand
        )
        check_whole(self, 1, "OneToOne has no branch", num_queries=num_queries)
        if k > num_queries:
            raise ArgumentError(f"HybridBranch: k={k} queries of one target are more than num_queries={num_queries}")
        check_choice(self, FurtherQueries, queries=queries)
        self.num_queries = num_queries
        self.queries = queries
        self.route = route

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        """The one-to-many group."""
        own = self.queries == "own"
        group = GroupSpec(
            name=self.group, num_queries=self.num_queries, queries=self.queries, route=self.route, own_content=own
        )
        return (group,)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-one for the primary group, one-to-many for the other, in every layer."""
        return self.one_to_one if group == PRIMARY else self.one_to_many

    def proposal_rule(self, group: str, progress: float) -> Rule:
        """One-to-many for a ranking of the extra group's own."""
        return self.one_to_many if group == self.group else self.encoder_rule(progress)

"""One-to-many supervision through parts of the decoder that inference does not use."""

from collections.abc import Mapping

from hdetr_d2.arguments import check_choice, check_positive, check_whole, check_within
from hdetr_d2.matching import HungarianMatcher, Matcher, MatchingCost
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .base import Supervision
from .rule import PRIMARY, GroupSpec, QueryKind, Rule


@SUPERVISION_REGISTRY.register()
class AuxiliaryOneToMany(Supervision):
    """The primary group learns one-to-one; groups on other routes, and taps of the layers, learn one-to-many.

    This is the supervision of Mr. DETR (section 3), whose routes have instruction tokens or a feed-forward part of
    their own, and of MS-DETR, whose layers are tapped between their attentions.

    Args:
        matcher: of the auxiliary groups.
        routes: queries of each further route of the decoder's layers, which names the group too: ``"own"``, the best
            of a ranking by encoder heads of their own, or ``"same"``, the primary group's. Taps are not named here.
        num_queries: of the primary group and so of the others.
        normaliser: the auxiliary losses are divided by this times the number of targets.
        weight: of the auxiliary losses.
        primary_class_factor: what the class loss of the primary group is multiplied by; 0.5 in MS-DETR.
        merge_primary: whether queries that the matcher of the auxiliary groups leaves out learn there, too, what they
            learn one-to-one (MS-DETR's use_indices_merge).
        anchor_cost: match the encoder's proposals by their anchors with this cost; None matches the boxes predicted
            from them, as everywhere else.
        cost: the matching cost of the one-to-one matchers; None is Deformable DETR's.
    """

    def __init__(
        self,
        *,
        matcher: Matcher,
        routes: Mapping[str, QueryKind] | None = None,
        num_queries: int = 300,
        normaliser: float = 1.0,
        weight: float = 1.0,
        primary_class_factor: float = 1.0,
        merge_primary: bool = False,
        anchor_cost: MatchingCost | None = None,
        cost: MatchingCost | None = None,
    ) -> None:
        super().__init__(cost=cost)
        check_whole(self, 1, num_queries=num_queries)
        check_within(self, 0.0, float("inf"), weight=weight, primary_class_factor=primary_class_factor)
        check_positive(self, normaliser=normaliser)
        self.routes = dict(routes or {})
        for name, queries in self.routes.items():
            check_choice(self, QueryKind, **{f"routes.{name}": queries})
        self.num_queries = num_queries
        self.auxiliary = Rule(
            matcher=matcher, weight=weight, normaliser=normaliser, fill_from=PRIMARY if merge_primary else None
        )
        self.primary = Rule(matcher=self.one_to_one.matcher, class_factor=primary_class_factor)
        self.encoder = self.one_to_one
        if anchor_cost is not None:
            self.encoder = Rule(matcher=HungarianMatcher(cost=anchor_cost), on_anchors=True)

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        """One group a route."""
        return tuple(
            GroupSpec(name=name, num_queries=self.num_queries, queries=queries, route=name)
            for name, queries in self.routes.items()
        )

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-one for the primary group, the given matcher for all others, in every layer."""
        return self.primary if group == PRIMARY else self.auxiliary

    def encoder_rule(self, progress: float) -> Rule:
        """One-to-one, by anchors where ``anchor_cost`` is given."""
        return self.encoder

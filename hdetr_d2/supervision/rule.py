"""What a supervision scheme is made of: groups of queries, and rules."""

from dataclasses import dataclass
from typing import Literal

from hdetr_d2.arguments import check_choice, check_positive, check_whole, check_within
from hdetr_d2.matching import Matcher

PRIMARY = "one2one"
"""Name of the group of queries that inference uses."""

QueryKind = Literal["next", "same", "own"]
"""Which queries a group has; see ``GroupSpec``."""


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
        own_content: whether queries of kind ``"own"`` have learned contents of their own, in place of the primary
            group's, where contents are learned (Relation-DETR).
    """

    name: str
    num_queries: int
    queries: QueryKind = "next"
    route: str = ""
    own_content: bool = False

    def __post_init__(self) -> None:
        owner = f"GroupSpec {self.name!r}"
        check_choice(owner, QueryKind, queries=self.queries)
        check_whole(owner, 1, num_queries=self.num_queries)


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

    def __post_init__(self) -> None:
        check_within(self, 0.0, float("inf"), weight=self.weight, class_factor=self.class_factor)
        check_positive(self, normaliser=self.normaliser)

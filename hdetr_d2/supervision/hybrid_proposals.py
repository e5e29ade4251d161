"""The hybrid proposals scheme."""

from hdetr_d2.matching import FrequencyDemand, MatchingCost
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .hybrid import HybridSupervision
from .rule import Rule


@SUPERVISION_REGISTRY.register()
class HybridProposals(HybridSupervision):
    """One-to-many matching of the encoder's proposals, one-to-one matching in the decoder, and no further queries.

    The decoder is never taught that two queries may have one object, and the encoder's heads, which rank and place
    queries, learn from k times as many tokens. Several proposals of one object are then of high rank, which
    ``TwoStageQueries(distinct=...)`` is for. Where its encoder's loss sees a selection of proposals, it should be
    ``supervise="ranked"``, or ``"all"``. Two-stage models only.

    Args:
        k: proposals a target gets.
        weight: of the encoder's losses.
        normaliser: they are divided by this times the number of targets; None is k.
        cost: the matching cost; None is Deformable DETR's.
        demand: gives each class a k of its own, of which ``k`` is the mean over objects; None gives all the same.
    """

    needs_proposals = True

    def __init__(
        self,
        *,
        k: int = 6,
        weight: float = 1.0,
        normaliser: float | None = None,
        cost: MatchingCost | None = None,
        demand: FrequencyDemand | None = None,
    ) -> None:
        super().__init__(k=k, weight=weight, normaliser=normaliser, encoder="one2many", cost=cost, demand=demand)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-one in every layer."""
        return self.one_to_one

"""The hybrid epoch scheme."""

from hdetr_d2.matching import MatchingCost, OneToManyMatcher
from hdetr_d2.registry import SUPERVISION_REGISTRY

from .base import Rule, Supervision


@SUPERVISION_REGISTRY.register()
class HybridEpoch(Supervision):
    """One-to-many matching first, one-to-one for the rest of training, on one set of queries (H-DETR, section 3.2).

    The encoder's proposals stay one-to-one throughout; the paper does not say what it does there.

    Args:
        k: queries a target gets in the one-to-many part; 10 in the paper.
        rho: the part of training that is one-to-many; 2/3 in the paper.
        cost: the matching cost; None is Deformable DETR's.
    """

    def __init__(self, *, k: int = 10, rho: float = 2 / 3, cost: MatchingCost | None = None) -> None:
        super().__init__(cost=cost)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"HybridEpoch: rho is a part of training in [0, 1], got {rho}")
        self.rho = rho
        self.one_to_many = Rule(matcher=OneToManyMatcher(k=k, cost=cost), normaliser=k)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """One-to-many while ``progress < rho``."""
        return self.one_to_many if progress < self.rho else self.one_to_one

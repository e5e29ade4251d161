"""One-to-many matching: every target is assigned up to k queries."""

from torch import Tensor

from hdetr_d2.registry import MATCHER_REGISTRY

from .base import CostMatcher
from .cost import MatchingCost
from .solver import solve_one_to_many


@MATCHER_REGISTRY.register()
class OneToManyMatcher(CostMatcher):
    """Each target gets the k queries that make the total cost least (H-DETR, section 3.1).

    Args:
        k: how many queries a target gets; 6 in H-DETR's branch scheme on COCO.
        cost: how pairs are costed; None is Deformable DETR's.
    """

    def __init__(self, *, k: int, cost: MatchingCost | None = None) -> None:
        super().__init__(cost=cost)
        if k < 1:
            raise ValueError(f"OneToManyMatcher: k must be at least 1, got {k}")
        self.k = self.copies = k
        self.one_to_one = k == 1

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M) cost -> min(N, k * M) pairs."""
        return solve_one_to_many(cost, self.k)

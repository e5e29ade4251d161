"""One-to-many matching: every target is assigned up to k queries."""

from torch import Tensor

from hdetr_d2.arguments import check_whole
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

    is_optimal = True

    def __init__(self, *, k: int, cost: MatchingCost | None = None) -> None:
        super().__init__(cost=cost)
        check_whole(self, 1, k=k)
        self.k: int = k
        self.one_to_one = k == 1

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M) cost -> min(N, k * M) pairs."""
        return solve_one_to_many(cost, self.k)

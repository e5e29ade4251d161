"""One-to-one matching."""

from torch import Tensor

from hdetr_d2.registry import MATCHER_REGISTRY

from .base import CostMatcher
from .solver import solve_one_to_many


@MATCHER_REGISTRY.register()
class HungarianMatcher(CostMatcher):
    """Each target gets the one query that makes the total cost least (DETR, section 3.1)."""

    copies = 1

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M) cost -> min(N, M) pairs."""
        return solve_one_to_many(cost, 1)

"""One-to-many matching: every target is assigned up to k queries."""

import torch
from torch import Tensor

from hdetr_d2.arguments import ArgumentError, check_whole
from hdetr_d2.registry import MATCHER_REGISTRY

from .base import CostMatcher
from .cost import MatchingCost, PairCost
from .demand import FrequencyDemand
from .solver import solve_one_to_many, solve_transportation


@MATCHER_REGISTRY.register()
class OneToManyMatcher(CostMatcher):
    """Each target gets the k queries that make the total cost least (H-DETR, section 3.1).

    Args:
        k: how many queries a target gets; 6 in H-DETR's branch scheme on COCO.
        cost: how pairs are costed; None is Deformable DETR's.
        demand: gives each class a k of its own, of which ``k`` is the mean; None is the same for all. Such problems are
            solved on whole cost matrices, one after another.

    Attributes:
        k_of_class: (K,) int64, of each class; None where it is the same for all.
    """

    is_optimal = True

    def __init__(self, *, k: int, cost: MatchingCost | None = None, demand: FrequencyDemand | None = None) -> None:
        super().__init__(cost=cost)
        check_whole(self, 1, k=k)
        self.k: int = k
        self.k_of_class: Tensor | None = None
        if demand is not None:
            self.k_of_class, self.is_optimal = demand.of_classes(k), False
        self.one_to_one = k == 1 and demand is None

    def at(self, classes: Tensor) -> CostMatcher:
        """Itself, or with the demands of these targets.

        Raises:
            ArgumentError: a class has no demand.
        """
        if self.k_of_class is None:
            return self
        classes = classes.cpu()
        if len(classes) and int(classes.max()) >= len(self.k_of_class):
            raise ArgumentError(
                f"FrequencyDemand: image_counts are of {len(self.k_of_class)} classes, a target is of class "
                f"{int(classes.max())}"
            )
        return _Demanding(self.cost, self.k_of_class[classes])

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M) cost -> min(N, k * M) pairs."""
        return solve_one_to_many(cost, self.k)


class _Demanding(CostMatcher):
    """Each of the given targets gets its own number of queries."""

    def __init__(self, cost: PairCost, demands: Tensor) -> None:
        super().__init__(cost=cost)
        self.demands = demands

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M) cost -> min(N, sum of the demands) pairs."""
        return solve_transportation(cost, torch.as_tensor(self.demands))

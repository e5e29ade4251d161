"""One-to-many matching: every target is assigned up to k queries."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hdetr_d2.registry import MATCHER_REGISTRY

from .base import CostMatcher
from .cost import MatchingCost


def solve_one_to_many(cost: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The cheapest assignment where each target may be used k times and each query once.

    It is the optimum of the assignment problem whose matrix has every column repeated k times. Where k * M > N not
    every copy finds a query, and the cheapest N copies are taken.

    Args:
        cost: (N, M) on the CPU, any float type. A pair whose cost is NaN or infinite is never matched.
        k: copies of each target, at least 1.

    Returns:
        ``rows`` (P,) ascending and ``columns`` (P,), int64; P = min(N, k * M) where all costs are finite.

    Raises:
        ValueError: for k < 1 or a matrix that is not two-dimensional.
    """
    if k < 1:
        raise ValueError(f"solve_one_to_many: k must be at least 1, got {k}")
    if cost.dim() != 2:
        raise ValueError(f"solve_one_to_many: cost must be (queries, targets), got shape {tuple(cost.shape)}")
    matrix = cost.detach().to("cpu", torch.float64).numpy()
    finite = np.isfinite(matrix)
    if not finite.all():
        # Larger than any sum of finite costs, so that a pair of this cost is only taken where nothing else is left.
        magnitude = np.abs(matrix[finite]).max(initial=1.0)
        matrix = np.where(finite, matrix, 2.0 * magnitude * (min(matrix.shape[0], k * matrix.shape[1]) + 1))
    rows, columns = linear_sum_assignment(np.tile(matrix, (1, k)) if k > 1 else matrix)
    columns = columns % max(matrix.shape[1], 1)
    keep = finite[rows, columns]
    return torch.from_numpy(rows[keep].astype(np.int64)), torch.from_numpy(columns[keep].astype(np.int64))


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
        self.k = k

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M) cost -> min(N, k * M) pairs."""
        return solve_one_to_many(cost, self.k)

"""The assignment problem with equal copies: compiled where it was built, scipy elsewhere."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hdetr_d2.arguments import check_whole

from .compiled import is_compiled

_SOLVED_TYPES = (torch.float32, torch.float64)


class Assignment(NamedTuple):
    """The solution of one problem.

    Attributes:
        rows: (P,) int64, matched queries; ascending, but for matchers that give one twice.
        columns: (P,) int64, the target of each.
        unmatchable: how many queries have no finite cost.
    """

    rows: Tensor
    columns: Tensor
    unmatchable: int


def solve_one_to_many(cost: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The cheapest assignment where each target may be used k times and each query once.

    It is the optimum of the assignment problem whose matrix has every column repeated k times. Where k * M > N not
    every copy finds a query, and the cheapest N copies are taken. Ties are broken the same way every time.

    Args:
        cost: (N, M), any float type and strides. A pair whose cost is NaN or infinite is never matched.
        k: queries of each target, at least 1.

    Returns:
        ``rows`` (P,) ascending and ``columns`` (P,), int64 on the CPU; P = min(N, k * M) where all costs are finite.

    Raises:
        ValueError: for k < 1 or no whole number, or a matrix that is not two-dimensional or not real.
    """
    (solution,) = solve_many([cost], [k])
    return solution.rows, solution.columns


def solve_transportation(cost: Tensor, demands: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest assignment where each target gets a number of queries of its own and each query is used once.

    It is the optimum of the assignment problem whose matrix has every column repeated as often as its target demands.

    Args:
        cost: (N, M) as of :func:`solve_one_to_many`.
        demands: (M,) int64, 1 at least.

    Returns:
        ``rows`` (P,) ascending and ``columns`` (P,), int64 on the CPU; P = min(N, sum of demands) where all costs are
        finite.

    Raises:
        ValueError: for a demand below 1, another number of them than of targets, or a matrix that is none.
    """
    cost = _checked(cost, 1)
    demands = demands.cpu()
    if demands.dim() != 1 or len(demands) != cost.shape[1] or (len(demands) and int(demands.min()) < 1):
        raise ValueError(
            f"solve_transportation: demands must be {cost.shape[1]} numbers, 1 at least, one a target, got "
            f"{demands.tolist()}"
        )
    if is_compiled():
        rows, columns, _, _ = torch.ops.hdetr_d2.solve_transportation([cost], [demands.long()])
        return rows, columns
    repeated = cost.repeat_interleave(demands, dim=1)
    rows, columns, _ = _solve_by_scipy(repeated, 1)
    return rows, torch.arange(len(demands)).repeat_interleave(demands)[columns]


def solve_many(costs: Sequence[Tensor], ks: Sequence[int]) -> list[Assignment]:
    """Solve many problems, in parallel threads (``torch.set_num_threads``) without Python's lock where compiled.

    Args:
        costs: matrices as of :func:`solve_one_to_many`. Those with adjacent costs of one target are read in place.
        ks: k of each.

    Raises:
        ValueError: as :func:`solve_one_to_many`.
    """
    matrices = [_checked(cost, k) for cost, k in zip(costs, ks, strict=True)]
    if not is_compiled():
        return [_solve_by_scipy(matrix, k) for matrix, k in zip(matrices, ks)]
    rows, columns, counts, unmatchable = torch.ops.hdetr_d2.solve_one_to_many(matrices, ks)
    if len(matrices) == 1:
        return [Assignment(rows, columns, int(unmatchable))]
    sizes = counts.tolist()
    return [Assignment(*parts) for parts in zip(rows.split(sizes), columns.split(sizes), unmatchable.tolist())]


def _checked(cost: Tensor, k: int) -> Tensor:
    """The matrix on the host."""
    check_whole("solve_one_to_many", 1, k=k)
    if cost.is_complex():
        raise ValueError(f"solve_one_to_many: cost must be real, got {cost.dtype}")
    if cost.dim() != 2:
        raise ValueError(f"solve_one_to_many: cost must be (queries, targets), got shape {tuple(cost.shape)}")
    if not cost.is_cpu:
        cost = cost.cpu()
    return cost if cost.dtype in _SOLVED_TYPES else cost.float()


def _solve_by_scipy(cost: Tensor, k: int) -> Assignment:
    """The same on the matrix with repeated columns."""
    matrix = cost.detach().double().numpy()
    finite = np.isfinite(matrix)
    if not finite.all():
        # Larger than any sum of finite costs, so that a pair of this cost is only taken where nothing else is left.
        magnitude = np.abs(matrix[finite]).max(initial=1.0)
        matrix = np.where(finite, matrix, 2.0 * magnitude * (min(matrix.shape[0], k * matrix.shape[1]) + 1))
    rows, columns = linear_sum_assignment(np.tile(matrix, (1, k)) if k > 1 else matrix)
    columns = columns % max(matrix.shape[1], 1)
    keep = finite[rows, columns]
    unmatchable = int((~finite).all(1).sum()) if matrix.shape[1] else 0
    return Assignment(
        torch.from_numpy(rows[keep].astype(np.int64)), torch.from_numpy(columns[keep].astype(np.int64)), unmatchable
    )

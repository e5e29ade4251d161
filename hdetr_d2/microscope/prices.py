"""What a target would have to pay for one query more: the dual prices of the assignment problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdetr_d2.matching.solver import Assignment


@dataclass(frozen=True)
class Offers:
    """What decides the prices of a stack of L problems of M targets and P matched pairs; on the device of the costs.

    Args:
        free: (L, M) the cheapest query that nobody has; infinite where there is none.
        taken: (L, M, M) by how much the cheapest exchange of a query of the first target's raises the costs if the
            second target gets it; infinite where none is possible.
        paid: (P,) the cost of each pair, layer after layer.
    """

    free: Tensor
    taken: Tensor
    paid: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All of it."""
        return self.free, self.taken, self.paid


def offers(costs: Tensor, solutions: Sequence[Assignment]) -> Offers:
    """Read them off the costs and the solutions.

    Args:
        costs: (L, N, M) on any device.
        solutions: of each of the L problems, on the CPU.
    """
    depth, queries, targets = costs.shape
    sizes = torch.tensor([len(solution.rows) for solution in solutions])
    layers = torch.arange(depth).repeat_interleave(sizes)
    pairs = torch.stack([torch.cat([s.rows for s in solutions]), torch.cat([s.columns for s in solutions]), layers])
    rows, columns, layers = pairs.to(costs.device, non_blocking=True).unbind(0)
    possible = costs.detach().masked_fill(~costs.isfinite(), torch.inf)
    of_matched = possible[layers, rows]
    paid = of_matched.gather(1, columns[:, None])
    taken = possible.new_full((depth * targets, targets), torch.inf)
    owner = (layers * targets + columns)[:, None].expand(-1, targets)
    taken.scatter_reduce_(0, owner, of_matched - paid, "amin")
    possible[layers, rows] = torch.inf
    free = possible.amin(1) if queries else possible.new_full((depth, targets), torch.inf)
    return Offers(free, taken.view(depth, targets, targets), paid[:, 0])


def settle(free: NDArray[np.float32], taken: NDArray[np.float32]) -> NDArray[np.float32]:
    """Prices of problems from their offers.

    A target takes the cheapest query that nobody has, or one from another target, which then needs one more itself:
    shortest paths, of which an optimal matching has none that is negative and closed (Bellman and Ford).

    Args:
        free: (S, M) as of ``Offers``; more problems may be stacked than one ``Offers`` has, filled up with infinity.
        taken: (S, M, M).

    Returns:
        (S, M), infinite where no further query can be had.
    """
    prices = free
    for _ in range(free.shape[1]):
        cheaper = np.minimum(free, (taken + prices[:, :, None]).min(1, initial=np.inf))
        if np.array_equal(cheaper, prices):
            break
        prices = cheaper
    return prices


def query_prices(cost: Tensor, solution: Assignment) -> Tensor:
    """What each target of one problem would cost to be given one query more, all others keeping their numbers.

    It is the right derivative of the least total cost by the target's demand, which does not depend on how the problem
    was solved.

    Args:
        cost: (N, M).
        solution: an optimal matching of it.

    Returns:
        (M,) on the CPU; infinite where no query is left.
    """
    found = offers(cost[None], [solution])
    return torch.from_numpy(settle(found.free.cpu().numpy(), found.taken.cpu().numpy())[0])

"""What a target would have to pay for one query more: the dual prices of the assignment problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdetr_d2.matching.solver import Assignment
from hdetr_d2.transfer import to_device

Indices = NDArray[np.int64]
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Stack:
    """Costs of problems that are in one tensor.

    Args:
        costs: (M, L, N) of M targets, L layers and N queries, on any device.
        problems: of each: its layer, its first target, how many it has, and how it was solved, on the CPU.
    """

    costs: Tensor
    problems: Sequence[tuple[int, int, int, Assignment]]


class Pricing:
    """Costs and prices of the problems of several stacks, all of them at once.

    What is read of the costs, ``read`` has where they are; all else is done on the host, from what it returns.

    Args:
        stacks: of float32 costs on one device; not finite where no pair is possible.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._stacks = stacks
        table, solutions = [], []
        cost = free = 0  # where the stack begins among all costs, and among those of free queries
        for stack in stacks:
            targets, layers, queries = stack.costs.shape
            for layer, first, count, solution in stack.problems:
                place = first * layers + layer
                table.append((cost + place * queries, layers * queries, free + place, layers, count))
                solutions.append(solution)
            cost, free = cost + targets * layers * queries, free + targets * layers
        self._cost, self._stride, self._free, self._free_stride, targets_of = np.array(table, np.int64).reshape(-1, 5).T
        self._targets = targets_of
        sizes = [len(solution.rows) for solution in solutions]
        none = torch.zeros(0, dtype=torch.int64)
        rows = torch.cat([none, *(solution.rows for solution in solutions)]).numpy()
        self._column = torch.cat([none, *(solution.columns for solution in solutions)]).numpy()
        self._problem = np.repeat(np.arange(len(sizes)), sizes)
        self._pair, self._other = _counted(targets_of[self._problem])
        problem = self._problem[self._pair]
        self._element = self._cost[problem] + self._other * self._stride[problem] + rows[self._pair]

    def read(self) -> tuple[Tensor, Tensor]:
        """What is needed of the costs, on their device.

        Returns:
            (Q,) of each matched query the costs of all targets of its image; and the least cost of each target, layer
            after layer, for queries that nobody has.
        """
        if not self._stacks:
            none = torch.zeros(0)
            return none, none
        costs = torch.cat([stack.costs.detach().reshape(-1) for stack in self._stacks])
        costs.masked_fill_(~costs.isfinite(), torch.inf)
        (element,) = to_device([torch.from_numpy(self._element)], costs.device)
        of_matched = costs[element]
        costs[element] = torch.inf
        free, start = [], 0
        for stack in self._stacks:
            stop = start + stack.costs.numel()
            each = costs[start:stop].view(stack.costs.shape)
            free.append((each.amin(2) if each.shape[2] else each.new_full(each.shape[:2], torch.inf)).flatten())
            start = stop
        return of_matched, torch.cat(free)

    def settle(self, of_matched: Numbers, free: Numbers) -> tuple[Numbers, Numbers]:
        """What each pair costs, and each target would have to pay.

        Args:
            of_matched, free: what ``read`` returns, on the host.

        Returns:
            (P,) the costs of all pairs, problem after problem; and (T,) the prices of all targets, likewise; infinite
            where no further query can be had.
        """
        start = np.cumsum(self._targets[self._problem]) - self._targets[self._problem]
        paid = of_matched[start + self._column] if len(start) else of_matched
        problem, target = _counted(self._targets)
        count, most = len(self._targets), int(self._targets.max(initial=0))
        offers = np.full((count, most), np.inf, dtype=np.float32)
        offers[problem, target] = free[self._free[problem] + target * self._free_stride[problem]]
        taken = np.full(count * most * most, np.inf, dtype=np.float32)
        owner = (self._problem * most + self._column)[self._pair]
        np.minimum.at(taken, owner * most + self._other, of_matched - paid[self._pair])
        return paid, settle(offers, taken.reshape(count, most, most))[problem, target]


def _counted(sizes: Indices) -> tuple[Indices, Indices]:
    """Which of the sizes each of so many things belongs to, and the how-many-eth of it it is."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def settle(free: Numbers, taken: Numbers) -> Numbers:
    """Prices of problems from their offers.

    A target takes the cheapest query that nobody has, or one from another target, which then needs one more itself:
    shortest paths, of which an optimal matching has none that is negative and closed (Bellman and Ford).

    Args:
        free: (S, M) the cheapest query that nobody has; infinite where there is none.
        taken: (S, M, M) by how much the cheapest exchange of a query of the first target's raises the costs if the
            second target gets it; infinite where none is possible.

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
    problems = [(0, 0, cost.shape[1], solution)] if cost.shape[1] else []
    pricing = Pricing([Stack(cost.float().mT[:, None], problems)])
    _, prices = pricing.settle(*(x.cpu().numpy() for x in pricing.read()))
    return torch.from_numpy(prices)

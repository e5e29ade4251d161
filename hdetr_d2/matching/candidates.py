"""Matching of costs that lie on another device: only the cheapest candidates leave it, all problems in one copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import is_compiled
from .solver import Assignment, solve_many

_MOST_INT16 = 32767
_TOO_FEW, _UNPROVEN, _PROVEN = 0, 1, 2  # what solve_candidates says of a problem
_ROUNDS = 8  # of asking for further candidates
_LACK = 0.05  # part of the demand without candidates beyond which that is not worth while


@dataclass(frozen=True)
class Candidates:
    """The cheapest candidates of one stack of equally large problems.

    The side that must be served asks: each target for k queries, or, where that is more than there are, each query for
    a target, of which each serves k.

    Args:
        costs: (L, S, T) float32, ascending along T, infinite where no pair is possible.
        indices: (L, S, T) int16 or int32, into the other side.
        unmatchable: (L,) int32, how many queries have no finite cost.
        sinks: how many nodes the other side has.
        k: how many queries a target gets.
        by_target: whether targets ask.
    """

    costs: Tensor
    indices: Tensor
    unmatchable: Tensor
    sinks: int
    k: int
    by_target: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What has to be on the host, by falling size of an element."""
        return self.costs, self.unmatchable, self.indices

    @property
    def demand(self) -> int:
        """How many each asks for."""
        return self.k if self.by_target else 1

    @property
    def capacity(self) -> int:
        """How many each of the other side serves."""
        return 1 if self.by_target else self.k


def select_candidates(costs: Tensor, k: int) -> Candidates:
    """Select what the optimum most likely consists of.

    A target that asks gets 4 k + 32 candidates: in simulated training, early and late, that is enough to prove the
    optimum nearly always up to 100 targets. Queries that ask have most of the choice to themselves and get 16.

    Args:
        costs: (L, N, M) float32 on any device.
        k: queries of each target.
    """
    _, queries, targets = costs.shape
    unmatchable = (~costs.isfinite()).all(-1).sum(-1, dtype=torch.int32)
    by_target = min(k, queries) * targets <= queries
    lists = _by_source(costs, by_target)
    sinks = lists.shape[-1]
    length = min(sinks, 4 * k + 32 if by_target else 16)
    values, indices = lists.topk(length, dim=-1, largest=False, sorted=True)
    indices = indices.to(torch.int16 if sinks <= _MOST_INT16 else torch.int32)
    return Candidates(values, indices, unmatchable, sinks, k, by_target)


def _by_source(costs: Tensor, by_target: bool) -> Tensor:
    """(L, sources, sinks), infinite where no pair is possible."""
    lists = costs.masked_fill(~costs.isfinite(), torch.inf)
    return lists.mT if by_target else lists


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of different type as one array of bytes; larger elements must come first, to stay aligned."""
    return torch.cat([x.contiguous().flatten().view(torch.uint8) for x in tensors])


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The tensors again, with the shapes and types of ``like``."""
    parts = packed.split([x.numel() * x.element_size() for x in like])
    return [part.view(x.dtype).view(x.shape) for part, x in zip(parts, like)]


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU with one transfer."""
    if all(x.device.type == "cpu" for x in tensors):
        return list(tensors)
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    copied = unpack(pack([tensors[i] for i in order]).cpu(), [tensors[i] for i in order])
    return [x for _, x in sorted(zip(order, copied), key=lambda pair: pair[0])]


def solve_stacks(stacks: Sequence[Tensor], ks: Sequence[int]) -> list[list[Assignment]]:
    """Solve stacks of problems, wherever their costs are.

    On the CPU the solver selects candidates itself, as it needs them, which is faster than selecting before. From
    another device candidates are copied; a problem whose optimum they do not prove is copied whole and solved again.

    Args:
        stacks: (L, N, M) costs each.
        ks: k of each stack.

    Returns:
        The solutions of each stack, on the CPU.
    """
    on_host = all(x.device.type == "cpu" for x in stacks)
    if on_host or not is_compiled() or any(x.dtype != torch.float32 for x in stacks):
        whole = to_host(stacks)
        return _grouped(solve_many(*_problems(whole, ks)), stacks)
    return solve_by_candidates(stacks, ks)


class _Problem:
    """A layer of a stack, with the candidates that the host has of it.

    Args:
        stack, layer: which it is.
        candidates: of its stack.
        costs, indices: (S, T) on the host.
        unmatchable: queries without a finite cost.
    """

    def __init__(
        self, stack: int, layer: int, candidates: Candidates, costs: Tensor, indices: Tensor, unmatchable: int
    ) -> None:
        self.stack, self.layer, self.candidates = stack, layer, candidates
        self.costs, self.indices, self.unmatchable = costs, indices, unmatchable
        # What is not listed costs no less than the last in the list.
        whole = costs.shape[1] == candidates.sinks
        self.bounds = costs.new_full(costs.shape[:1], torch.inf) if whole else costs[:, -1].clone()
        self.state = _UNPROVEN

    def add(self, costs: Tensor, places: Tensor) -> bool:
        """Add candidates: costs (P,), infinite for none, and places (P,) int32, source * sinks + sink; whether any."""
        possible = costs.isfinite()
        if not possible.any():
            return False
        places, order = places[possible].long().sort()
        source, costs = places // self.candidates.sinks, costs[possible][order]
        counts = source.bincount(minlength=len(self.costs))
        position = torch.arange(len(source)) - (counts.cumsum(0) - counts)[source]
        further = self.costs.new_full((len(counts), int(counts.max())), torch.inf)
        which = self.indices[:, :1].repeat(1, further.shape[1])
        further[source, position] = costs
        which[source, position] = (places % self.candidates.sinks).to(which.dtype)
        self.costs, self.indices = torch.cat([self.costs, further], 1), torch.cat([self.indices, which], 1)
        return True

    def keep(self, sources: Tensor, sinks: Tensor, state: int, source_prices: Tensor, sink_prices: Tensor) -> None:
        """Keep what the solver found, and whether it is worth while to go on."""
        self.pairs, self.state = (sources, sinks), state
        self.source_prices, self.sink_prices = source_prices, sink_prices
        wanted = len(self.costs) * self.candidates.demand
        self.is_hopeless = wanted - len(sources) > _LACK * wanted

    @property
    def solution(self) -> Assignment:
        """Of the candidates."""
        sources, sinks = self.pairs
        if not self.candidates.by_target:
            return Assignment(sources, sinks, self.unmatchable)
        sinks, order = sinks.sort()
        return Assignment(sinks, sources[order], self.unmatchable)


def solve_by_candidates(stacks: Sequence[Tensor], ks: Sequence[int]) -> list[list[Assignment]]:
    """As :func:`solve_stacks`, by candidates wherever the costs are; float32 only.

    Where candidates do not prove their optimum, its prices go to the device and pairs that could improve on it come
    back, all problems in one copy, until there are none. A problem that has too few candidates, or asks for long, is
    copied whole.
    """
    selected = [select_candidates(costs, k) for costs, k in zip(stacks, ks)]
    host = to_host([x for candidates in selected for x in candidates.tensors])
    problems = [
        _Problem(stack, layer, candidates, costs, indices, count)
        for stack, (candidates, values, counts, places) in enumerate(zip(selected, host[0::3], host[1::3], host[2::3]))
        for layer, (costs, indices, count) in enumerate(zip(values, places, counts.tolist()))
    ]
    _solve(problems)
    for _ in range(_ROUNDS):
        asking = [problem for problem in problems if problem.state != _PROVEN and not problem.is_hopeless]
        if not asking:
            break
        again = []
        for problem, (costs, places) in zip(asking, further_candidates(stacks, asking)):
            if problem.add(costs, places):
                again.append(problem)
            elif problem.state == _UNPROVEN:
                problem.state = _PROVEN
            else:
                problem.is_hopeless = True
        _solve(again)
    unproven = [problem for problem in problems if problem.state != _PROVEN]
    whole = to_host([stacks[problem.stack][problem.layer] for problem in unproven])
    solutions = iter(solve_many(whole, [problem.candidates.k for problem in unproven]) if unproven else ())
    return _grouped([p.solution if p.state == _PROVEN else next(solutions) for p in problems], stacks)


def _solve(problems: Sequence[_Problem]) -> None:
    """Solve each on its candidates."""
    if not problems:
        return
    sources, sinks, counts, states, source_prices, sink_prices = torch.ops.hdetr_d2.solve_candidates(
        [problem.costs for problem in problems],
        [problem.indices for problem in problems],
        [problem.bounds for problem in problems],
        [problem.candidates.sinks for problem in problems],
        [problem.candidates.demand for problem in problems],
        [problem.candidates.capacity for problem in problems],
    )
    sizes = counts.tolist()
    found = zip(
        problems,
        sources.split(sizes),
        sinks.split(sizes),
        states.tolist(),
        source_prices.split([len(problem.costs) for problem in problems]),
        sink_prices.split([problem.candidates.sinks for problem in problems]),
    )
    for problem, *results in found:
        problem.keep(*results)


def further_candidates(stacks: Sequence[Tensor], problems: Sequence[_Problem]) -> list[tuple[Tensor, Tensor]]:
    """Pairs that are no candidates yet and cost less than the prices of their source and sink.

    Without any, the solution is the optimum of all pairs (they are what column generation asks for).

    Args:
        stacks: costs, on their device.
        problems: which to look at.

    Returns:
        For each problem costs (P,), infinite for those that are none, and places (P,) int32, on the host.
    """
    tensors = []
    for problem in problems:
        costs = _by_source(stacks[problem.stack][problem.layer], problem.candidates.by_target)
        prices = torch.cat([problem.source_prices, problem.sink_prices]).to(costs.device)
        source_prices, sink_prices = prices.split([costs.shape[0], costs.shape[1]])
        reduced = costs.double() - source_prices[:, None] - sink_prices
        reduced.scatter_(1, problem.indices.to(costs.device).long(), torch.inf)
        each, total = min(8, costs.shape[1]), max(64, 2 * costs.shape[0])
        best, sink = reduced.topk(each, dim=1, largest=False)
        best, flat = best.flatten().topk(min(total, best.numel()), largest=False)
        places = flat // each * costs.shape[1] + sink.flatten()[flat]
        tensors.append(costs.flatten()[places].masked_fill(best >= 0, torch.inf))
        tensors.append(places.int())
    host = to_host(tensors)
    return list(zip(host[0::2], host[1::2]))


def _problems(stacks: Sequence[Tensor], ks: Sequence[int]) -> tuple[list[Tensor], list[int]]:
    matrices = [matrix for costs in stacks for matrix in costs.unbind(0)]
    return matrices, [k for costs, k in zip(stacks, ks) for _ in range(len(costs))]


def _grouped(solutions: Sequence[Assignment], stacks: Sequence[Tensor]) -> list[list[Assignment]]:
    remaining = iter(solutions)
    return [[next(remaining) for _ in range(len(costs))] for costs in stacks]

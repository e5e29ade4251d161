"""Matching of costs that lie on another device: only the cheapest candidates leave it, all problems in one copy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from hdetr_d2.structures import offsets_of
from hdetr_d2.transfer import to_device, to_host

from .compiled import is_compiled
from .solver import Assignment, solve_many

_MOST_INT16 = 32767
_TOO_FEW, _UNPROVEN, _PROVEN = 0, 1, 2  # what solve_candidates says of a problem
_ROUNDS = 8  # of asking for further candidates
_LACK = 0.05  # part of the demand without candidates beyond which that is not worth while


class Costs(NamedTuple):
    """Pair costs of a batch in L layers, whose problems are alike.

    Args:
        pairs: (M, L, N) float, each target of the batch beside the N queries of its image.
        image: (M,) int64, ascending, of each target, on the same device.
        counts: targets of each of the B images.
        k: queries of each target.
    """

    pairs: Tensor
    image: Tensor
    counts: tuple[int, ...]
    k: int

    def of_image(self, image: int) -> Tensor:
        """(L, N, m) of the m targets of an image."""
        first = sum(self.counts[:image])
        return self.pairs[first : first + self.counts[image]].permute(1, 2, 0)

    def matrices(self) -> list[Tensor]:
        """(N, m) of each problem: image after image that has targets, layer after layer."""
        return [
            matrix.permute(1, 0)
            for of_image in self.pairs.split(self.counts)
            if len(of_image)
            for matrix in of_image.unbind(1)
        ]


class Asking(NamedTuple):
    """Which side of a problem must be served, and how.

    The side that must be served asks: each target for k queries, or, where that is more than there are, each query for
    a target, of which each serves k.

    Args:
        sinks: how many nodes the other side has.
        k: how many queries a target gets.
        by_target: whether targets ask.
    """

    sinks: int
    k: int
    by_target: bool

    @classmethod
    def of(cls, queries: int, targets: int, k: int) -> Self:
        """Of an image with so many queries and targets."""
        by_target = min(k, queries) * targets <= queries
        return cls(queries if by_target else targets, k, by_target)

    @property
    def demand(self) -> int:
        """How many each asks for."""
        return self.k if self.by_target else 1

    @property
    def capacity(self) -> int:
        """How many each of the other side serves."""
        return 1 if self.by_target else self.k


@dataclass(frozen=True)
class Candidates:
    """The cheapest candidates of the images of a batch in which the same side asks.

    Args:
        costs: (S, L, T) of all that ask in these images, image after image; ascending along T, infinite where no pair
            is possible.
        indices: (S, L, T) int16 or int32, into the other side of the image.
        images: which images.
        asking: of each of them.
        sources: how many ask in each.
    """

    costs: Tensor
    indices: Tensor
    images: list[int]
    asking: list[Asking]
    sources: list[int]

    def of_layers(self, costs: Tensor, indices: Tensor) -> Iterator[tuple[int, int, Asking, Tensor, Tensor]]:
        """Each problem: image, layer, who asks, and costs and indices (S, T) on the host."""
        parts = zip(self.images, self.asking, costs.split(self.sources), indices.split(self.sources))
        for image, asking, of_image, places in parts:
            length = min(of_image.shape[-1], asking.sinks)  # the rest is what other images have more
            for layer in range(of_image.shape[1]):
                listed = places[:, layer, :length].clamp(max=asking.sinks - 1)
                yield image, layer, asking, of_image[:, layer, :length].contiguous(), listed


def select_candidates(costs: Costs) -> tuple[list[Candidates], Tensor]:
    """Select what the optimum most likely consists of.

    A target that asks gets 4 k + 32 candidates: in simulated training, early and late, that is enough to prove the
    optimum nearly always up to 100 targets. Queries that ask have most of the choice to themselves and get 16.

    Args:
        costs: float32 on any device.

    Returns:
        The candidates of all images with targets, and how many queries of each image have no finite cost, (B, L) int32.
    """
    pairs, counts = costs.pairs, costs.counts
    possible = pairs.abs() < torch.inf
    lists = torch.where(possible, pairs, torch.inf)
    choices = pairs.new_zeros(len(counts), *pairs.shape[1:]).index_add(0, costs.image, possible.to(pairs.dtype))
    asking = [Asking.of(pairs.shape[2], count, costs.k) for count in counts]
    selected = []
    for by_target in (True, False):
        images = [i for i, (count, one) in enumerate(zip(counts, asking)) if count and one.by_target == by_target]
        if images:
            select = _asked_by_targets if by_target else _asked_by_queries
            values, indices = select(lists, counts, images, costs.k)
            sinks = max(asking[i].sinks for i in images)
            indices = indices.to(torch.int16 if sinks <= _MOST_INT16 else torch.int32)
            sources = [counts[i] if by_target else pairs.shape[2] for i in images]
            selected.append(Candidates(values, indices, images, [asking[i] for i in images], sources))
    return selected, (choices == 0).sum(-1, dtype=torch.int32)


def _asked_by_targets(lists: Tensor, counts: Sequence[int], images: list[int], k: int) -> tuple[Tensor, Tensor]:
    """The cheapest queries of each target of some images: costs and indices (S, L, T)."""
    if sum(counts[i] for i in images) < len(lists):
        parts = lists.split(list(counts))
        lists = torch.cat([parts[i] for i in images])
    return lists.topk(min(lists.shape[2], 4 * k + 32), dim=2, largest=False, sorted=True)


def _asked_by_queries(lists: Tensor, counts: Sequence[int], images: list[int], k: int) -> tuple[Tensor, Tensor]:
    """The cheapest targets of each query of some images: costs and indices (S, L, T)."""
    del k
    most, offsets = max(counts[i] for i in images), offsets_of(counts)
    rows = torch.tensor([[offsets[i] + j if j < counts[i] else len(lists) for j in range(most)] for i in images])
    (rows,) = to_device([rows], lists.device)
    padded = torch.cat([lists, lists.new_full((1, *lists.shape[1:]), torch.inf)])[rows]
    values, indices = padded.topk(min(most, 16), dim=1, largest=False, sorted=True)
    return values.permute(0, 3, 2, 1).flatten(0, 1), indices.permute(0, 3, 2, 1).flatten(0, 1)


def _by_source(costs: Tensor, by_target: bool) -> Tensor:
    """(sources, sinks) of a problem's costs (N, M), infinite where no pair is possible."""
    lists = costs.masked_fill(~costs.isfinite(), torch.inf)
    return lists.mT if by_target else lists


def solve_stacks(stacks: Sequence[Costs], others: Sequence[Tensor] = ()) -> tuple[list[list[Assignment]], list[Tensor]]:
    """Solve stacks of problems, wherever their costs are.

    On the CPU the solver selects candidates itself, as it needs them, which is faster than selecting before. From
    another device candidates are copied; a problem whose optimum they do not prove is copied whole and solved again.

    Args:
        stacks: costs.
        others: tensors that are wanted on the host, too, and go with the first copy.

    Returns:
        The solutions of each stack, on the CPU, in the order of ``Costs.matrices``; and the other tensors.
    """
    on_host = all(costs.pairs.device.type == "cpu" for costs in stacks)
    if on_host or not is_compiled() or any(costs.pairs.dtype != torch.float32 for costs in stacks):
        host = to_host([*(costs.pairs for costs in stacks), *others])
        problems = [(m, costs.k) for costs, x in zip(stacks, host) for m in costs._replace(pairs=x).matrices()]
        solutions = iter(solve_many(*zip(*problems)) if problems else ())
        return [[next(solutions) for _ in _problems_of(costs)] for costs in stacks], host[len(stacks) :]
    return solve_by_candidates(stacks, others)


def _problems_of(costs: Costs) -> list[tuple[int, int]]:
    """Image and layer of each problem, in the order of ``Costs.matrices``."""
    return [(i, layer) for i, count in enumerate(costs.counts) if count for layer in range(costs.pairs.shape[1])]


class _Problem:
    """A layer of an image, with the candidates that the host has of it.

    Args:
        place: of which stack, image and layer it is.
        asking: who asks.
        costs, indices: (S, T) on the host.
        unmatchable: queries without a finite cost.
    """

    def __init__(
        self, place: tuple[int, int, int], asking: Asking, costs: Tensor, indices: Tensor, unmatchable: int
    ) -> None:
        self.place, self.asking = place, asking
        self.costs, self.indices, self.unmatchable = costs, indices, unmatchable
        # What is not listed costs no less than the last in the list.
        whole = costs.shape[1] == asking.sinks
        self.bounds = costs.new_full(costs.shape[:1], torch.inf) if whole else costs[:, -1].clone()
        self.state = _UNPROVEN

    def add(self, costs: Tensor, places: Tensor) -> bool:
        """Add candidates: costs (P,), infinite for none, and places (P,) int32, source * sinks + sink; whether any."""
        possible = costs.isfinite()
        if not possible.any():
            return False
        places, order = places[possible].long().sort()
        source, costs = places // self.asking.sinks, costs[possible][order]
        counts = source.bincount(minlength=len(self.costs))
        position = torch.arange(len(source)) - (counts.cumsum(0) - counts)[source]
        further = self.costs.new_full((len(counts), int(counts.max())), torch.inf)
        which = self.indices[:, :1].repeat(1, further.shape[1])
        further[source, position] = costs
        which[source, position] = (places % self.asking.sinks).to(which.dtype)
        self.costs, self.indices = torch.cat([self.costs, further], 1), torch.cat([self.indices, which], 1)
        return True

    def keep(self, sources: Tensor, sinks: Tensor, state: int, source_prices: Tensor, sink_prices: Tensor) -> None:
        """Keep what the solver found, and whether it is worth while to go on."""
        self.pairs, self.state = (sources, sinks), state
        self.source_prices, self.sink_prices = source_prices, sink_prices
        wanted = len(self.costs) * self.asking.demand
        self.is_hopeless = wanted - len(sources) > _LACK * wanted

    @property
    def solution(self) -> Assignment:
        """Of the candidates."""
        sources, sinks = self.pairs
        if not self.asking.by_target:
            return Assignment(sources, sinks, self.unmatchable)
        sinks, order = sinks.sort()
        return Assignment(sinks, sources[order], self.unmatchable)


def solve_by_candidates(
    stacks: Sequence[Costs], others: Sequence[Tensor] = ()
) -> tuple[list[list[Assignment]], list[Tensor]]:
    """As :func:`solve_stacks`, by candidates wherever the costs are; float32 only.

    Where candidates do not prove their optimum, its prices go to the device and pairs that could improve on it come
    back, all problems in one copy, until there are none. A problem that has too few candidates, or asks for long, is
    copied whole.
    """
    problems, on_host = _first_candidates(stacks, others)
    _solve(list(problems.values()))
    for _ in range(_ROUNDS):
        asking = [problem for problem in problems.values() if problem.state != _PROVEN and not problem.is_hopeless]
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
    unproven = [problem for problem in problems.values() if problem.state != _PROVEN]
    whole = to_host([_costs_of(problem, stacks) for problem in unproven])
    solved = solve_many(whole, [problem.asking.k for problem in unproven]) if unproven else []
    solutions = {place: problem.solution for place, problem in problems.items() if problem.state == _PROVEN}
    solutions.update({problem.place: solution for problem, solution in zip(unproven, solved)})
    return [
        [solutions[i, image, layer] for image, layer in _problems_of(costs)] for i, costs in enumerate(stacks)
    ], on_host


def _first_candidates(
    stacks: Sequence[Costs], others: Sequence[Tensor]
) -> tuple[dict[tuple[int, int, int], _Problem], list[Tensor]]:
    """All problems by stack, image and layer, with what is selected of them; and other tensors on the host."""
    selected = [select_candidates(costs) for costs in stacks]
    wanted = [x for sets, lost in selected for x in (lost, *(y for one in sets for y in (one.costs, one.indices)))]
    host = to_host([*wanted, *others])
    copied = iter(host)
    problems: dict[tuple[int, int, int], _Problem] = {}
    for stack, (sets, _) in enumerate(selected):
        unmatchable = next(copied).tolist()
        for candidates in sets:
            for image, layer, asking, costs, indices in candidates.of_layers(next(copied), next(copied)):
                place = stack, image, layer
                problems[place] = _Problem(place, asking, costs, indices, unmatchable[image][layer])
    return problems, host[len(wanted) :]


def _costs_of(problem: _Problem, stacks: Sequence[Costs]) -> Tensor:
    """All costs (N, m) of a problem, on their device."""
    stack, image, layer = problem.place
    return stacks[stack].of_image(image)[layer]


def _solve(problems: Sequence[_Problem]) -> None:
    """Solve each on its candidates."""
    if not problems:
        return
    sources, sinks, counts, states, source_prices, sink_prices = torch.ops.hdetr_d2.solve_candidates(
        [problem.costs for problem in problems],
        [problem.indices for problem in problems],
        [problem.bounds for problem in problems],
        [problem.asking.sinks for problem in problems],
        [problem.asking.demand for problem in problems],
        [problem.asking.capacity for problem in problems],
    )
    sizes = counts.tolist()
    found = zip(
        problems,
        sources.split(sizes),
        sinks.split(sizes),
        states.tolist(),
        source_prices.split([len(problem.costs) for problem in problems]),
        sink_prices.split([problem.asking.sinks for problem in problems]),
    )
    for problem, *results in found:
        problem.keep(*results)


def further_candidates(stacks: Sequence[Costs], problems: Sequence[_Problem]) -> list[tuple[Tensor, Tensor]]:
    """Pairs that are no candidates yet and cost less than the prices of their source and sink.

    Without any, the solution is the optimum of all pairs (they are what column generation asks for).

    Args:
        stacks: costs, on their device.
        problems: which to look at.

    Returns:
        For each problem costs (P,), infinite for those that are none, and places (P,) int32, on the host.
    """
    known = [x for problem in problems for x in (problem.source_prices, problem.sink_prices, problem.indices)]
    known = to_device(known, stacks[problems[0].place[0]].pairs.device)
    tensors = []
    for problem, source_prices, sink_prices, indices in zip(problems, known[0::3], known[1::3], known[2::3]):
        costs = _by_source(_costs_of(problem, stacks), problem.asking.by_target)
        reduced = costs.double() - source_prices[:, None] - sink_prices
        reduced.scatter_(1, indices.long(), torch.inf)
        each, total = min(8, costs.shape[1]), max(64, 2 * costs.shape[0])
        best, sink = reduced.topk(each, dim=1, largest=False)
        best, flat = best.flatten().topk(min(total, best.numel()), largest=False)
        places = flat // each * costs.shape[1] + sink.flatten()[flat]
        tensors.append(costs.flatten()[places].masked_fill(best >= 0, torch.inf))
        tensors.append(places.int())
    host = to_host(tensors)
    return list(zip(host[0::2], host[1::2]))

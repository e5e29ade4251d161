"""Matching of costs that lie on another device: only the cheapest candidates leave it, all problems in one copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled import is_compiled
from .solver import Assignment, solve_many

_MOST_INT16 = 32767


@dataclass(frozen=True)
class Candidates:
    """The cheapest candidates of one stack of equally large problems.

    The side that must be served asks: each target for k queries, or, where the copies of all targets are more than the
    queries, each query for a target, of which each serves k.

    Args:
        costs: (L, S, T) float32, ascending along T, infinite where no pair is possible.
        indices: (L, S, T) int16 or int32, into the other side.
        unmatchable: (L,) int32, how many queries have no finite cost.
        sinks: how many nodes the other side has.
        copies: k.
        by_target: whether targets ask.
    """

    costs: Tensor
    indices: Tensor
    unmatchable: Tensor
    sinks: int
    copies: int
    by_target: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What has to be on the host, by falling size of an element."""
        return self.costs, self.unmatchable, self.indices


def select_candidates(costs: Tensor, k: int) -> Candidates:
    """Select what the optimum most likely consists of.

    A target with k copies gets 4 k + 32 candidates: in simulated training, early and late, that is enough to prove the
    optimum nearly always.

    Args:
        costs: (L, N, M) float32 on any device.
        k: copies of each target.
    """
    _, queries, targets = costs.shape
    finite = costs.isfinite()
    unmatchable = (~finite).all(-1).sum(-1, dtype=torch.int32)
    by_target = min(k, queries) * targets <= queries
    lists = costs.masked_fill(~finite, torch.inf)
    lists = lists.mT if by_target else lists
    sinks = lists.shape[-1]
    length = min(sinks, 4 * (k if by_target else 1) + 32)
    values, indices = lists.topk(length, dim=-1, largest=False, sorted=True)
    indices = indices.to(torch.int16 if sinks <= _MOST_INT16 else torch.int32)
    return Candidates(values, indices, unmatchable, sinks, k, by_target)


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


def solve_stacks(stacks: Sequence[Tensor], copies: Sequence[int]) -> list[list[Assignment]]:
    """Solve stacks of problems, wherever their costs are.

    On the CPU the solver selects candidates itself, as it needs them, which is faster than selecting before. From
    another device candidates are copied; a problem whose optimum they do not prove is copied whole and solved again.

    Args:
        stacks: (L, N, M) costs each.
        copies: k of each stack.

    Returns:
        The solutions of each stack, on the CPU.
    """
    on_host = all(x.device.type == "cpu" for x in stacks)
    if on_host or not is_compiled() or any(x.dtype != torch.float32 for x in stacks):
        whole = to_host(stacks)
        return _grouped(solve_many(*_problems(whole, copies)), stacks)
    return solve_by_candidates(stacks, copies)


def solve_by_candidates(stacks: Sequence[Tensor], copies: Sequence[int]) -> list[list[Assignment]]:
    """As :func:`solve_stacks`, by candidates wherever the costs are; float32 only."""
    selected = [select_candidates(costs, k) for costs, k in zip(stacks, copies)]
    host = to_host([x for candidates in selected for x in candidates.tensors])
    triples = list(zip(host[0::3], host[1::3], host[2::3]))
    costs = [x for values, _, _ in triples for x in values.unbind(0)]
    indices = [x for _, _, places in triples for x in places.unbind(0)]
    unmatchable = [count for _, counts, _ in triples for count in counts.tolist()]
    owner = [candidates for candidates in selected for _ in range(len(candidates.costs))]
    sources, sinks, counts, solved = torch.ops.hdetr_d2.solve_candidates(
        costs,
        indices,
        [c.sinks for c in owner],
        [c.copies if c.by_target else 1 for c in owner],
        [1 if c.by_target else c.copies for c in owner],
    )
    sizes = counts.tolist()
    solutions = []
    for candidates, source, sink, count in zip(owner, sources.split(sizes), sinks.split(sizes), unmatchable):
        if candidates.by_target:
            sink, order = sink.sort()
            solutions.append(Assignment(sink, source[order], count))
        else:
            solutions.append(Assignment(source, sink, count))
    unproven = (~solved).nonzero().flatten().tolist()
    if unproven:
        matrices, each = _problems(stacks, copies)
        again = solve_many(to_host([matrices[i] for i in unproven]), [each[i] for i in unproven])
        for i, solution in zip(unproven, again):
            solutions[i] = solution
    return _grouped(solutions, stacks)


def _problems(stacks: Sequence[Tensor], copies: Sequence[int]) -> tuple[list[Tensor], list[int]]:
    matrices = [matrix for costs in stacks for matrix in costs.unbind(0)]
    return matrices, [k for costs, k in zip(stacks, copies) for _ in range(len(costs))]


def _grouped(solutions: Sequence[Assignment], stacks: Sequence[Tensor]) -> list[list[Assignment]]:
    remaining = iter(solutions)
    return [[next(remaining) for _ in range(len(costs))] for costs in stacks]

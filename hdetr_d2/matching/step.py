"""Matching of a whole training step."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor

from hdetr_d2.structures import BatchedTargets, Predictions, Targets

from .base import CostMatcher, Matcher, StagedMatcher
from .candidates import solve_stacks, to_host
from .solver import Assignment


@dataclass(frozen=True)
class Matches:
    """The matched queries of one group.

    Args:
        layer: (P,) int64.
        row: (P,) int64, image * n + query.
        target: (P,) int64, index into the targets of the batch, image after image.
        per_layer: number of matched queries of each layer, on the host.
        unmatchable: number of (layer, image, query) without a finite cost, of images with targets.
        last: (Q,) int64, ascending, the matches that give their query its class: of several of one query in a layer,
            the last one. None where no query can have several.
    """

    layer: Tensor
    row: Tensor
    target: Tensor
    per_layer: list[int]
    unmatchable: int = 0
    last: Tensor | None = None

    def filled(self, other: "Matches") -> "Matches":
        """One match a query: the last of these that it has, else that of ``other``, which has one at most."""
        last = self if self.last is None else self._at(self.last)
        size = max([0, *(int(x.row.max()) + 1 for x in (last, other) if len(x.row))])
        taken = torch.isin(other.layer * size + other.row, last.layer * size + last.row)
        added = other._at((~taken).nonzero()[:, 0])
        layer = torch.cat([last.layer, added.layer])
        per_layer = layer.bincount(minlength=len(self.per_layer)).tolist()
        pairs = torch.cat([last.row, added.row]), torch.cat([last.target, added.target])
        return Matches(layer, *pairs, per_layer, self.unmatchable)

    def _at(self, index: Tensor) -> "Matches":
        return replace(self, layer=self.layer[index], row=self.row[index], target=self.target[index], last=None)


@dataclass(frozen=True)
class MatchRequest:
    """What is to be matched.

    Args:
        predictions: of one group.
        matchers: of each of its layers.
        targets: that it learns from, one an image.
        candidates: what is matched in place of the predictions, such as the anchors of proposals; None for themselves.
        classes: the targets by their classes, where ``targets`` are labelled by something else; None where not.
    """

    predictions: Predictions
    matchers: Sequence[Matcher]
    targets: Sequence[Targets]
    candidates: Predictions | None = None
    classes: Sequence[Targets] | None = None

    @cached_property
    def batch(self) -> BatchedTargets:
        """The targets with their offsets."""
        return BatchedTargets.of(self.targets)

    @property
    def matched(self) -> Predictions:
        """The predictions that matchers see."""
        return self.predictions if self.candidates is None else self.candidates


@dataclass(frozen=True)
class _Stack:
    """The costs of one image in some layers of a group, whose matchers have one cost and one k."""

    request: int
    image: int
    layers: list[int]
    matcher: CostMatcher
    costs: Tensor


@dataclass(frozen=True)
class _Proposed:
    """What a staged matcher proposes for one image in the layers of a group that it matches."""

    request: int
    image: int
    layers: list[int]
    matcher: StagedMatcher
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Solved:
    """How one image was matched in some layers of a group, for who looks on.

    Args:
        request: index of the group's request.
        image: index of the image.
        layers: which.
        costs: (layers, N, M) of every pair, on the device of the predictions; None where no cost was computed.
        solutions: of each layer, on the CPU.
        is_optimal: whether they are of the least cost.
    """

    request: int
    image: int
    layers: list[int]
    costs: Tensor | None
    solutions: list[Assignment]
    is_optimal: bool


@torch.no_grad()
def match_step(requests: Sequence[MatchRequest], seen: list[Solved] | None = None) -> list[Matches]:
    """Match all groups, layers and images of a step.

    Costs are computed for each image against its own targets, layers with the same cost at once. All problems leave the
    device in one copy and are solved in parallel. Predictions that are not finite match nothing and cause a warning.

    Args:
        requests: one a group; images are in the same order in all of them.
        seen: gets what was solved, and from which costs; None keeps nothing.

    Returns:
        The matches of each request, on the device of its predictions.
    """
    stacks = [stack for i, request in enumerate(requests) for stack in _stacks(i, request)]
    regular = [stack for stack in stacks if stack.matcher.is_optimal]
    others = [stack for stack in stacks if not stack.matcher.is_optimal]
    solved: dict[tuple[int, int, int], Assignment] = {}
    solutions = solve_stacks([s.costs for s in regular], [s.matcher.k or 0 for s in regular])
    for stack, of_layers in zip(regular, solutions):
        solved.update({(stack.request, layer, stack.image): one for layer, one in zip(stack.layers, of_layers)})
    proposed = [one for i, request in enumerate(requests) for one in _proposed(i, request)]
    copied = iter(to_host([s.costs for s in others] + [x for one in proposed for x in one.tensors]))
    for stack in others:
        for layer, cost in zip(stack.layers, next(copied)):
            lost = int((~cost.isfinite()).all(1).sum())
            solved[stack.request, layer, stack.image] = Assignment(*stack.matcher.solve(cost), lost)
    for one in proposed:
        parts = zip(*(next(copied) for _ in one.tensors))
        solved.update({(one.request, layer, one.image): one.matcher.finish(*x) for layer, x in zip(one.layers, parts)})
    if seen is not None:
        for of in stacks:
            solutions_of = [solved[of.request, layer, of.image] for layer in of.layers]
            seen.append(Solved(of.request, of.image, of.layers, of.costs, solutions_of, of.matcher.is_optimal))
        for one in proposed:
            solutions_of = [solved[one.request, layer, one.image] for layer in one.layers]
            seen.append(Solved(one.request, one.image, one.layers, None, solutions_of, False))
    results = [_collect(i, request, solved) for i, request in enumerate(requests)]
    lost = sum(matches.unmatchable for matches in results)
    if lost:
        message = f"{lost} predictions of a training step are NaN or infinite; they were matched with nothing"
        log_every_n_seconds(logging.WARNING, message, n=60, name=__name__)
    return results


def _stacks(index: int, request: MatchRequest) -> list[_Stack]:
    """The costs of all layers whose matcher reads nothing else."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for layer, matcher in enumerate(request.matchers):
        if isinstance(matcher, CostMatcher):
            key = matcher.cost, matcher.k, None if matcher.is_optimal else id(matcher)
            alike.setdefault(key, []).append(layer)
    stacks = []
    classes = request.targets if request.classes is None else request.classes
    for layers in alike.values():
        matcher = request.matchers[layers[0]]
        assert isinstance(matcher, CostMatcher)
        stacks += [
            _Stack(index, image, layers, matcher.at(classes[image].labels), matcher.cost(*arguments))
            for image, arguments in _images(request, layers)
        ]
    return stacks


def _proposed(index: int, request: MatchRequest) -> list[_Proposed]:
    """What staged matchers propose, for all layers that one of them matches at once."""
    layers_of: dict[int, list[int]] = {}
    for layer, matcher in enumerate(request.matchers):
        if isinstance(matcher, StagedMatcher):
            layers_of.setdefault(id(matcher), []).append(layer)
    proposed = []
    for layers in layers_of.values():
        matcher = request.matchers[layers[0]]
        assert isinstance(matcher, StagedMatcher)
        proposed += [
            _Proposed(index, image, layers, matcher, matcher.propose(*arguments))
            for image, arguments in _images(request, layers)
        ]
    return proposed


def _images(request: MatchRequest, layers: list[int]) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """Each image with targets: its index; logits and boxes of some layers, labels and target boxes."""
    whole = len(layers) == len(request.matchers)
    for image, targets in enumerate(request.targets):
        if len(targets.labels):
            logits, boxes = request.matched.logits[:, image], request.matched.boxes[:, image]
            of_layers = (logits, boxes) if whole else (logits[layers], boxes[layers])
            yield image, (*of_layers, targets.labels, targets.boxes)


def _collect(index: int, request: MatchRequest, solved: dict[tuple[int, int, int], Assignment]) -> Matches:
    """The matches of one group: those that are solved, and those of matchers that match one image at a time."""
    num_queries, device = request.predictions.logits.shape[2], request.predictions.logits.device
    layers, rows, columns, per_layer, unmatchable = [], [], [], [], 0
    for layer, matcher in enumerate(request.matchers):
        matched = 0
        for image, (targets, offset) in enumerate(zip(request.batch, request.batch.offsets)):
            if len(targets.labels):
                if isinstance(matcher, (CostMatcher, StagedMatcher)):
                    solution = solved[index, layer, image]
                    queries, chosen = solution.rows, solution.columns
                    unmatchable += solution.unmatchable
                else:
                    logits, boxes = request.matched.logits[layer, image], request.matched.boxes[layer, image]
                    queries, chosen = matcher(logits, boxes, targets.labels, targets.boxes)
                layers.append(torch.full_like(queries, layer))
                rows.append(queries + image * num_queries)
                columns.append(chosen + offset)
                matched += len(queries)
        per_layer.append(matched)
    packed = torch.zeros(3, 0, dtype=torch.int64)
    if layers:
        packed = torch.stack([torch.cat(layers), torch.cat(rows), torch.cat(columns)])
    last = None
    if any(matcher.may_repeat for matcher in request.matchers):
        last = _last_of_each(packed[0] * len(request.targets) * num_queries + packed[1]).to(device, non_blocking=True)
    layer_index, row_index, column_index = packed.to(device, non_blocking=True).unbind(0)
    return Matches(layer_index, row_index, column_index, per_layer, unmatchable, last)


def _last_of_each(key: Tensor) -> Tensor:
    """Where each value of (P,) occurs for the last time, (Q,) ascending."""
    key, order = key.sort(stable=True)
    ends = torch.ones_like(key, dtype=torch.bool)
    ends[:-1] = key[1:] != key[:-1]
    return order[ends].sort().values

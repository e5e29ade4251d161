"""Matching of a whole training step."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor

from hdetr_d2.structures import BatchedTargets, Predictions, Targets
from hdetr_d2.transfer import to_device

from .base import CostMatcher, Matcher, StagedMatcher
from .candidates import Costs, solve_stacks
from .cost import PairCost
from .scored import Scored
from .solver import Assignment
from .union import most_frequent


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
        united: what boxes learn in place of these, where matches of several layers are united; see ``unite``.
    """

    layer: Tensor
    row: Tensor
    target: Tensor
    per_layer: list[int]
    unmatchable: int = 0
    last: Tensor | None = None
    united: "Matches | None" = None

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
        fill_from: which request of the step has matches for queries that have none here; see ``Matches.filled``.
        classes: the targets by their classes, where ``targets`` are labelled by something else; None where not.
        unions: of each layer, the name of the union that its matches are part of, over all requests of the step; no
            names where matches are not united.
        stands: (L, B, N) bool, which predictions may be matched; None for all. Targets that there are too few for go
            without, as where there are more targets than queries.
    """

    predictions: Predictions
    matchers: Sequence[Matcher]
    targets: Sequence[Targets]
    candidates: Predictions | None = None
    fill_from: int | None = None
    classes: Sequence[Targets] | None = None
    unions: Sequence[Hashable] = ()
    stands: Tensor | None = None

    @cached_property
    def batch(self) -> BatchedTargets:
        """The targets with their offsets."""
        return BatchedTargets.of(self.targets)

    @cached_property
    def matched(self) -> Predictions:
        """The predictions that matchers see, to whom one that may not be matched is not finite."""
        seen = self.predictions if self.candidates is None else self.candidates
        if self.stands is None:
            return seen
        return Predictions(seen.logits.detach(), seen.boxes.detach().masked_fill(~self.stands[..., None], torch.nan))

    @cached_property
    def fallen(self) -> Tensor | None:
        """(B,) int64, how many predictions of each image may not be matched, where there are such."""
        return None if self.stands is None else (~self.stands).sum((0, 2))

    @property
    def classes_of_images(self) -> tuple[Tensor, ...]:
        """The class of each target of an image, (m,) int64 for each image; on the CPU where they were known there."""
        batch = BatchedTargets.of(self.targets if self.classes is None else self.classes)
        return (batch.labels if batch.host_labels is None else batch.host_labels).split(batch.counts)


class _Task(NamedTuple):
    """Some layers of a request that one matcher matches, or several that are alike."""

    request: int
    layers: list[int]
    matcher: Matcher
    scored: Scored


@dataclass(frozen=True)
class Solved:
    """How one image was matched in some layers of a group, for who looks on.

    Args:
        request: index of the group's request.
        image: index of the image.
        layers: which.
        stack: the costs of all images, on the device of the predictions; None where no cost was computed.
        solutions: of each layer, on the CPU.
        is_optimal: whether they are of the least cost.
    """

    request: int
    image: int
    layers: list[int]
    stack: Costs | None
    solutions: list[Assignment]
    is_optimal: bool

    @property
    def costs(self) -> Tensor | None:
        """(layers, N, M) of every pair of the image."""
        return None if self.stack is None else self.stack.of_image(self.image)


@torch.no_grad()
def match_step(requests: Sequence[MatchRequest], seen: list[Solved] | None = None) -> list[Matches]:
    """Match all groups, layers and images of a step.

    All costs are computed together, all problems leave the device in one copy and are solved in parallel, and the
    matches go back in one. Predictions that are not finite match nothing and cause a warning.

    Args:
        requests: one a group; images are in the same order in all of them.
        seen: gets what was solved, and from which costs; None keeps nothing.

    Returns:
        The matches of each request, on the device of its predictions.
    """
    tasks = [task for index, request in enumerate(requests) for task in _tasks(index, request)]
    costed, staged, solved = _costed(tasks), _proposed(tasks), _Solutions()
    regular = [(task, costs) for task, matcher, costs in costed if matcher.is_optimal]
    others = [(task, matcher, costs) for task, matcher, costs in costed if not matcher.is_optimal]
    wanted = [[costs.pairs] for _, _, costs in others] + [proposed for _, _, proposed in staged]
    wanted.append([request.fallen for request in requests if request.fallen is not None])
    solutions, on_host = solve_stacks([costs for _, costs in regular], [x for tensors in wanted for x in tensors])
    copied = iter(on_host)
    host = [[next(copied) for _ in tensors] for tensors in wanted]
    for (task, _), found in zip(regular, solutions):
        solved.keep(task, found)
    for (task, matcher, costs), (pairs,) in zip(others, host):
        matrices = costs._replace(pairs=pairs).matrices()
        solved.keep(task, _solved_one_by_one(task, matcher, matrices, requests[task.request].classes_of_images))
    for (task, staged_matcher, _), proposed in zip(staged, host[len(others) : -1]):
        of_images = staged_matcher.finish_batch(proposed, task.scored.counts)
        solved.keep(task, [one for of_layers in of_images for one in of_layers])
    if seen is not None:
        seen += _seen(costed, [task for task, _, _ in staged], solved)
    fallen = iter(host[-1])
    found_of = [
        _collect(index, request, solved, None if request.stands is None else next(fallen))
        for index, request in enumerate(requests)
    ]
    lost = sum(matches.unmatchable for matches in found_of)
    if lost:
        message = f"{lost} predictions of a training step are NaN or infinite; they were matched with nothing"
        log_every_n_seconds(logging.WARNING, message, n=60, name=__name__)
    filled = [
        matches if request.fill_from is None else matches.filled(found_of[request.fill_from])
        for request, matches in zip(requests, found_of)
    ]
    united = unite(filled, requests)
    moved = _on_device([*filled, *united], [*requests, *requests])
    return [replace(one, united=other) for one, other in zip(moved, moved[len(filled) :])] if united else moved


def unite(found: Sequence[Matches], requests: Sequence[MatchRequest]) -> list[Matches]:
    """One set of matches for all layers of each union: every query with the target that it was given most often.

    Layers of other requests of the same queries are among them (D-FINE's matching of boxes, section 4.2). Of targets
    that a query was given equally often it keeps the first.

    Args:
        found: the matches of each request, on the host.
        requests: whose ``unions`` say what is united.

    Returns:
        Matches of each request, in every layer those of its union; none at all where no request has unions.
    """
    if not any(request.unions for request in requests):
        return []
    pairs: dict[Hashable, list[tuple[Tensor, Tensor]]] = {}
    for matches, request in zip(found, requests):
        for layer, name in enumerate(request.unions):
            of_layer = matches.layer == layer
            pairs.setdefault(name, []).append((matches.row[of_layer], matches.target[of_layer]))
    unions = {name: most_frequent(*(torch.cat(x) for x in zip(*parts))) for name, parts in pairs.items()}
    united = []
    for matches, request in zip(found, requests):
        parts = [unions[name] for name in request.unions]
        if not parts:
            united.append(matches)
            continue
        counts = [len(rows) for rows, _ in parts]
        layers = torch.arange(len(parts)).repeat_interleave(torch.tensor(counts))
        rows, targets = (torch.cat(x) for x in zip(*parts))
        united.append(Matches(layers, rows, targets, counts))
    return united


class _Solutions(dict[tuple[int, int, int], Assignment]):
    """By request, layer and image."""

    def keep(self, task: _Task, found: Sequence[Assignment]) -> None:
        """Take in the solutions of a task: image after image that has targets, layer after layer."""
        images = [image for image, count in enumerate(task.scored.counts) if count]
        places = [(task.request, layer, image) for image in images for layer in task.layers]
        self.update(zip(places, found, strict=True))


def _tasks(index: int, request: MatchRequest) -> list[_Task]:
    """The layers of a request that are matched together, if there are targets."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for layer, matcher in enumerate(request.matchers):
        if isinstance(matcher, CostMatcher):
            key = matcher.cost, matcher.k, None if matcher.is_optimal else id(matcher)
            alike.setdefault(key, []).append(layer)
        elif isinstance(matcher, StagedMatcher):
            alike.setdefault((id(matcher),), []).append(layer)
    if not any(request.batch.counts):
        return []
    return [
        _Task(index, layers, request.matchers[layers[0]], Scored.of(request.matched, layers, request.batch))
        for layers in alike.values()
    ]


def _costed(tasks: Sequence[_Task]) -> list[tuple[_Task, CostMatcher, Costs]]:
    """The tasks of matchers that read costs alone, with these; all tasks with the same cost are costed together."""
    alike: dict[tuple[object, ...], list[tuple[_Task, CostMatcher]]] = {}
    for task in tasks:
        if isinstance(task.matcher, CostMatcher):
            # Groups may learn other labels than one another, but not other boxes.
            alike.setdefault((task.matcher.cost, id(task.scored.target_boxes)), []).append((task, task.matcher))
    costed = []
    for members in alike.values():
        pairs = _pairs(members[0][1].cost, [task.scored for task, _ in members])
        for (task, matcher), of_task in zip(members, pairs, strict=True):
            costs = Costs(of_task, task.scored.image, task.scored.counts, matcher.k or 0)
            costed.append((task, matcher, costs))
    return costed


def _pairs(cost: PairCost, groups: Sequence[Scored]) -> list[Tensor]:
    """Costs (M, L, N) of each group."""
    of_batch = getattr(cost, "of_batch", None)
    if of_batch is not None:
        together: list[Tensor] = of_batch(groups)
        return together
    return [torch.cat([cost(*image).movedim(-1, 0) for image in group.images()]) for group in groups]


def _proposed(tasks: Sequence[_Task]) -> list[tuple[_Task, StagedMatcher, list[Tensor]]]:
    """The tasks of staged matchers, with what these propose."""
    return [
        (task, task.matcher, task.matcher.propose_batch(task.scored))
        for task in tasks
        if isinstance(task.matcher, StagedMatcher)
    ]


def _solved_one_by_one(
    task: _Task, matcher: CostMatcher, matrices: Sequence[Tensor], classes: Sequence[Tensor]
) -> list[Assignment]:
    """What a matcher of its own kind makes of the (N, m) costs of its problems.

    Args:
        task: of it.
        matcher: whose demands may depend on classes.
        matrices: image after image that has targets, layer after layer.
        classes: of the targets of each image.
    """
    solvers = [at for of_image in classes if len(of_image) for at in [matcher.at(of_image)] * len(task.layers)]
    return [
        Assignment(*solver.solve(cost), int((~cost.isfinite()).all(1).sum()))
        for solver, cost in zip(solvers, matrices, strict=True)
    ]


def _seen(
    costed: Sequence[tuple[_Task, CostMatcher, Costs]], staged: Sequence[_Task], solved: _Solutions
) -> list[Solved]:
    """Every image of every task with its solutions."""
    tasks: list[tuple[_Task, Costs | None, bool]] = [(task, costs, m.is_optimal) for task, m, costs in costed]
    tasks += [(task, None, False) for task in staged]
    return [
        Solved(
            task.request,
            image,
            task.layers,
            costs,
            [solved[task.request, layer, image] for layer in task.layers],
            is_optimal,
        )
        for task, costs, is_optimal in tasks
        for image, count in enumerate(task.scored.counts)
        if count
    ]


def _collect(index: int, request: MatchRequest, solved: _Solutions, fallen: Tensor | None) -> Matches:
    """The matches of one group on the host: those that are solved, and those of matchers that see one image a time.

    Of the predictions without a finite cost, ``fallen`` (B,) are none that anybody need be warned of.
    """
    batch, num_queries = request.batch, request.predictions.logits.shape[2]
    found: list[tuple[Tensor, Tensor]] = []
    places: list[tuple[int, int, int]] = []
    per_layer, unmatchable = [0] * len(request.matchers), 0
    for layer, matcher in enumerate(request.matchers):
        for image, targets in enumerate(batch):
            if not batch.counts[image]:
                continue
            solution = solved.get((index, layer, image))
            if solution is not None:
                found.append((solution.rows, solution.columns))
                unmatchable += solution.unmatchable
            else:
                logits, boxes = request.matched.logits[layer, image], request.matched.boxes[layer, image]
                found.append(matcher(logits, boxes, targets.labels, targets.boxes))
            places.append((layer, image * num_queries, batch.offsets[image]))
            per_layer[layer] += len(found[-1][0])
    if fallen is not None and unmatchable:
        unmatchable -= sum(lost for lost, count in zip(fallen.tolist(), batch.counts, strict=True) if count)
    layers = rows = columns = torch.zeros(0, dtype=torch.int64)
    if found:
        sizes = torch.tensor([len(queries) for queries, _ in found])
        layers, first_row, first_column = torch.tensor(places).repeat_interleave(sizes, 0).unbind(1)
        rows = torch.cat([queries for queries, _ in found]) + first_row
        columns = torch.cat([chosen for _, chosen in found]) + first_column
    last = None
    if any(matcher.may_repeat for matcher in request.matchers):
        last = _last_of_each(layers * len(batch) * num_queries + rows)
    return Matches(layers, rows, columns, per_layer, unmatchable, last)


def _on_device(found: Sequence[Matches], requests: Sequence[MatchRequest]) -> list[Matches]:
    """The matches where the predictions are, all in one copy."""
    fields = ("layer", "row", "target", "last")
    tensors = {
        (i, name): getattr(matches, name)
        for i, matches in enumerate(found)
        for name in fields
        if getattr(matches, name) is not None
    }
    if not tensors:
        return []
    copied = dict(zip(tensors, to_device(list(tensors.values()), requests[0].predictions.logits.device)))
    return [
        replace(
            matches,
            layer=copied[i, "layer"],
            row=copied[i, "row"],
            target=copied[i, "target"],
            last=copied.get((i, "last")),
        )
        for i, matches in enumerate(found)
    ]


def _last_of_each(key: Tensor) -> Tensor:
    """Where each value of (P,) occurs for the last time, (Q,) ascending."""
    key, order = key.sort(stable=True)
    ends = torch.ones_like(key, dtype=torch.bool)
    ends[:-1] = key[1:] != key[:-1]
    return order[ends].sort().values

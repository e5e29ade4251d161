"""Some steps of a training that are looked at together, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.matching import CostMatcher, MatchingCost
from hdetr_d2.matching.solver import Assignment
from hdetr_d2.matching.step import Solved
from hdetr_d2.structures import BatchedTargets
from hdetr_d2.transfer import to_device

from .prices import Pricing, Stack
from .probe import UNCLAIMED, Probe, probe

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Images:
    """What the samples of a micro-batch are.

    Args:
        image_ids: of each image.
        to_file: (x scale, y scale, x offset, y offset) of each, from the augmented image to the file; NaN if unknown.
        annotations: (M,) of each target; negative where it has none.
    """

    image_ids: list[int]
    to_file: list[tuple[float, ...]]
    annotations: NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """A step, as its matching showed it.

    Args:
        images: of it.
        iteration: which step.
        suffixes: of each request, the endings of its layers' losses.
        solved: how all was matched.
        targets: of the batch, by class.
        learned: of the primary group, whose labels are positions in ``columns``.
        logits: (B, N, K) of the primary group's last layer.
        boxes: (B, N, 4) of it.
        cost: of its pairs.
        columns: (K,) the classes of the logits; None for all.
    """

    images: Images
    iteration: int
    suffixes: list[list[str]]
    solved: list[Solved]
    targets: BatchedTargets
    learned: BatchedTargets
    logits: Tensor
    boxes: Tensor
    cost: MatchingCost
    columns: Tensor | None

    @classmethod
    def of(cls, step: MatchedStep, images: Images, iteration: int) -> Seen:
        """What a chunk needs of a step, and no graph."""
        request = step.requests[next(i for i, names in enumerate(step.suffixes) if names[-1] == "")]
        matcher = request.matchers[-1]
        cost = matcher.cost if isinstance(matcher, CostMatcher) else None
        return cls(
            images,
            iteration,
            step.suffixes,
            step.solved,
            step.targets,
            request.batch,
            request.predictions.logits[-1].detach().clone(),
            request.predictions.boxes[-1].detach().clone(),
            cost if isinstance(cost, MatchingCost) else MatchingCost(),
            step.columns,
        )

    @property
    def numel(self) -> int:
        """How many numbers it keeps from being given back."""
        stacks = {id(one.stack): one.stack.pairs.numel() for one in self.solved if one.stack is not None}
        return self.logits.numel() + sum(stacks.values())


@dataclass(frozen=True)
class _Problems:
    """Layers of images that were solved.

    Args:
        slot: of each, which layer of all groups.
        first: its first target among those of the chunk.
        targets: how many it has.
        is_optimal: whether prices mean something.
        solutions: of each.
    """

    slot: NDArray[np.int64]
    first: NDArray[np.int64]
    targets: NDArray[np.int64]
    is_optimal: NDArray[np.bool_]
    solutions: list[Assignment]

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(P,) slot, target and query of each matched pair."""
        sizes = [len(solution.rows) for solution in self.solutions]
        none = torch.zeros(0, dtype=torch.int64)
        columns = torch.cat([none, *(solution.columns for solution in self.solutions)]).numpy()
        rows = torch.cat([none, *(solution.rows for solution in self.solutions)]).numpy()
        return self.slot.repeat(sizes), self.first.repeat(sizes) + columns, rows


class Chunk:
    """Steps whose numbers are computed together: a few operations on many are cheaper than many on a few.

    ``tensors`` says what is wanted on the host, ``columns`` what becomes of it.

    Args:
        seen: the steps, all with the same groups of queries.
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = seen
        self.slots = [name for names in seen[0].suffixes for name in names]
        self._starts = np.cumsum([0, *(len(names) for names in seen[0].suffixes)])
        counts = [len(each.targets.labels) for each in seen]
        self._first = np.cumsum([0, *counts])
        self._priced, self._others = self._problems(priced=True), self._problems(priced=False)
        self._pricing = Pricing([stack for each in seen for stack in _stacks(each.solved, each.targets.offsets)])

    def _problems(self, *, priced: bool) -> _Problems:
        """Those with costs, or those without, in the order of ``_stacks``."""
        rows, solutions = [], []
        for number, each in enumerate(self.seen):
            for one in each.solved:
                if (one.stack is not None) == priced:
                    offset, count = (
                        self._first[number] + each.targets.offsets[one.image],
                        each.targets.counts[one.image],
                    )
                    start = self._starts[one.request]
                    rows += [(start + layer, offset, count, one.is_optimal) for layer in one.layers]
                    solutions += one.solutions
        slot, first, targets, is_optimal = np.array(rows, dtype=np.int64).reshape(-1, 4).T
        return _Problems(slot, first, targets, is_optimal.astype(bool), solutions)

    @cached_property
    def _runs(self) -> list[list[int]]:
        """Numbers of steps side by side whose predictions are of one shape."""

        def shape(number: int) -> tuple[Any, ...]:
            each = self.seen[number]
            return tuple(each.logits.shape[1:]), each.columns is None, each.cost

        return [list(numbers) for _, numbers in groupby(range(len(self.seen)), shape)]

    def tensors(self) -> list[Tensor]:
        """What is read of the costs, and of the predictions; where these are."""
        labels = torch.cat([each.targets.labels for each in self.seen])
        probed = [tensor for run in self._runs for tensor in self._probed(run).tensors]
        return [*self._pricing.read(), labels, *probed]

    def _probed(self, run: Sequence[int]) -> Probe:
        """What the primary group's last layer predicts, in steps of one shape."""
        steps = [self.seen[number] for number in run]
        query = self._queries_of_last_layer[self._first[run[0]] : self._first[run[-1] + 1]]
        sizes = [len(each.logits) for each in steps]
        of_targets = _numbered([each.targets.counts for each in steps])
        device = steps[0].logits.device
        image, matched = to_device([torch.from_numpy(of_targets), torch.from_numpy(query)], device)
        found = probe(
            torch.cat([each.logits for each in steps]),
            torch.cat([each.boxes for each in steps]),
            torch.cat([each.learned.labels for each in steps]),
            torch.cat([each.learned.boxes for each in steps]),
            image,
            matched,
            steps[0].cost,
        )
        if steps[0].columns is None:
            return found
        columns = torch.stack([each.columns for each in steps if each.columns is not None])
        (of_image,) = to_device([torch.arange(len(steps)).repeat_interleave(torch.tensor(sizes))], device)
        other = columns[of_image[image], found.other]
        return Probe(
            **{**found.__dict__, "other": other, "unclaimed_class": columns[of_image[:, None], found.unclaimed_class]}
        )

    @cached_property
    def _queries_of_last_layer(self) -> NDArray[np.int64]:
        """(M,) of each target; -1 for none."""
        query = np.full(self._first[-1], -1, dtype=np.int64)
        for problems in (self._others, self._priced):
            slot, target, row = problems.pairs
            last = slot == self.slots.index("")
            query[target[last]] = row[last]
        return query

    def columns(self, arrays: Sequence[NDArray[Any]], first_image: int) -> Columns:
        """What is kept.

        Args:
            arrays: ``tensors`` on the host.
            first_image: the number of the first image.
        """
        names = list(Probe.__dataclass_fields__)
        runs = [dict(zip(names, arrays[3 + len(names) * i :])) for i in range(len(self._runs))]
        probed = {name: [run[name] for run in runs] for name in names}
        image = _numbered([each.targets.counts for each in self.seen])
        annotations = np.concatenate([each.images.annotations for each in self.seen])
        known = annotations >= 0
        columns = self._matches(*self._pricing.settle(arrays[0], arrays[1]))
        for name in ("iou", "score", "box", "relabelled"):
            columns[name] = np.concatenate(probed[name]).astype(np.float16)
        columns["other"] = np.concatenate(probed["other"]).astype(np.int32)
        columns["label"] = arrays[2].astype(np.int32)
        columns["annotation"] = annotations
        columns["row"] = image + first_image
        columns = {name: values[known] for name, values in columns.items()}
        return columns | self._of_images() | _unclaimed(probed)

    def _of_images(self) -> Columns:
        ids = [identity for each in self.seen for identity in each.images.image_ids]
        to_file = [place for each in self.seen for place in each.images.to_file]
        steps = [each.iteration for each in self.seen for _ in each.images.image_ids]
        return {
            "image_id": np.array(ids, dtype=np.int64),
            "step": np.array(steps, dtype=np.int32),
            "to_file": np.array(to_file, dtype=np.float32).reshape(len(ids), 4),
        }

    def _matches(self, paid: NDArray[np.float32], prices: NDArray[np.float32]) -> Columns:
        """Query, cost, number of queries and price of each target and slot."""
        shape = int(self._first[-1]), len(self.slots)
        query = np.full(shape, -1, dtype=np.int32)
        cost = np.full(shape, np.nan, dtype=np.float32)
        price = np.full(shape, np.nan, dtype=np.float32)
        count = np.zeros(shape, dtype=np.uint16)
        slot, target, row = (np.concatenate(x) for x in zip(self._priced.pairs, self._others.pairs))
        amount = np.concatenate([paid, np.full(len(slot) - len(paid), np.nan, dtype=np.float32)])
        place = target * shape[1] + slot
        order = np.argsort(-amount, kind="stable")  # of several writes to one place the last and cheapest stays
        query.reshape(-1)[place[order]] = row[order]
        cost.reshape(-1)[place[order]] = amount[order]
        np.add.at(count.reshape(-1), place, np.uint16(1))
        priced = self._priced
        at = np.repeat(priced.first - (np.cumsum(priced.targets) - priced.targets), priced.targets)
        of_price = (at + np.arange(len(prices))) * shape[1] + np.repeat(priced.slot, priced.targets)
        means = np.repeat(priced.is_optimal, priced.targets) & np.isfinite(prices)
        price.reshape(-1)[of_price[means]] = prices[means]
        return {"query": query, "cost": cost.astype(np.float16), "price": price.astype(np.float16), "count": count}


def _stacks(solved: Sequence[Solved], offsets: Sequence[int]) -> Iterator[Stack]:
    """Costs with what was solved from them, in the order of the solutions; ``offsets`` are of the images' targets."""
    for _, members in groupby((one for one in solved if one.stack is not None), lambda one: id(one.stack)):
        of_images = list(members)
        stack = of_images[0].stack
        assert stack is not None
        problems = [
            (layer, offsets[one.image], stack.counts[one.image], solution)
            for one in of_images
            for layer, solution in enumerate(one.solutions)
        ]
        yield Stack(stack.pairs.float(), problems)


def _numbered(counts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(M,) the image of each target, of steps whose images have so many targets."""
    flat = [count for of_step in counts for count in of_step]
    return np.repeat(np.arange(len(flat)), flat)


def _unclaimed(probed: Mapping[str, Sequence[NDArray[Any]]]) -> Columns:
    """What is kept of each image's predictions; with zeros up to ``UNCLAIMED``, for models of fewer queries."""
    kinds = {"unclaimed_class": np.int32, "unclaimed_score": np.float16, "unclaimed_box": np.float16}
    columns: Columns = {"confidence": np.concatenate(probed["confidence"]).astype(np.float32)}
    for name, kind in kinds.items():
        filled = []
        for values in probed[name]:
            missing = UNCLAIMED - values.shape[1]
            filled.append(np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)]) if missing else values)
        columns[name] = np.concatenate(filled).astype(kind)
    return columns

"""Looking on at the matching of a training, and keeping what was seen in files."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdetr_d2.errors import UserError
from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.matching import CostMatcher, MatchingCost
from hdetr_d2.matching.step import Solved
from hdetr_d2.output import write_atomically

from .prices import offers, settle
from .probe import UNCLAIMED, Probe, probe

FOLDER = "microscope"
"""Of a run's folder."""

PART = re.compile(r"^matches_(\d{7})(\.\d+)?\.rank(\d+)\.npz$")
"""A file with what one process saw until so many steps were done."""

MOST_OBJECTS = 2**18
"""Kept in memory before they are written, also where no checkpoint is due."""

Batch = Sequence[Mapping[str, Any]]
Columns = dict[str, NDArray[Any]]


class NoAnnotationIds(UserError, ValueError):
    """Training samples that do not say which annotations they have."""


@dataclass(frozen=True)
class _Images:
    """What the samples of a micro-batch are."""

    image_ids: list[int]
    to_file: list[tuple[float, ...]]
    annotations: NDArray[np.int64]


@dataclass(frozen=True)
class _Pending:
    """A step whose tensors may still be on their way to the host."""

    images: _Images
    iteration: int
    labels: Tensor
    image: Tensor
    targets: int
    offsets: tuple[int, ...]
    suffixes: list[list[str]]
    solved: list[Solved]
    priced: list[int]
    tensors: list[Tensor]
    ready: Any


class MatchRecorder:
    """Records matches of every step; a ``MatchObserver`` of the criterion.

    Of every annotation that a step sees, and of every layer: the cheapest query that it got, that pair's cost, how many
    it got, and what one more would cost (``query_prices``); from the last layer of the primary group what ``probe``
    says. On a GPU nothing waits: a step's numbers are fetched during the next one.

    Args:
        folder: gets the files.
        rank: of this process, in their names.

    Attributes:
        iteration: of the step, set before it.
    """

    def __init__(self, folder: str, *, rank: int = 0) -> None:
        self.folder = folder
        self.rank = rank
        self.iteration = 0
        self._coming: deque[_Images] = deque()
        self._pending: _Pending | None = None
        self._parts: list[Columns] = []
        self._slots: list[str] = []
        self._objects = 0
        self._images = 0
        self._number = 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, of which each is expected by a later call of this recorder.

        Raises:
            NoAnnotationIds: a mapper does not pass ids on.
        """
        for batch in batches:
            self._coming.append(_images_of(batch))
            yield batch

    def __call__(self, step: MatchedStep) -> None:
        """Take in a step; ``columns`` is where logits of some classes only stand for themselves."""
        self._settle()
        images = self._coming.popleft()
        labels = step.targets.labels
        if len(images.annotations) != len(labels):
            raise RuntimeError(f"{len(labels)} targets are matched, of {len(images.annotations)} annotations")
        priced = [i for i, one in enumerate(step.solved) if one.costs is not None]
        tensors: list[Tensor] = [labels]
        for i in priced:
            one = step.solved[i]
            assert one.costs is not None
            tensors += offers(one.costs.float(), one.solutions).tensors
        image = torch.arange(len(step.targets)).repeat_interleave(torch.tensor(step.targets.counts, dtype=torch.int64))
        tensors += self._probe(step, image).tensors
        host, ready = _fetch(tensors)
        self._pending = _Pending(
            images, self.iteration, labels, image, len(labels), step.targets.offsets,
            step.suffixes, step.solved, priced, host, ready,
        )  # fmt: skip
        if labels.device.type == "cpu":
            self._settle()

    def _probe(self, step: MatchedStep, image: Tensor) -> Probe:
        """Of the primary group's last layer."""
        index = next(i for i, names in enumerate(step.suffixes) if names[-1] == "")
        request = step.requests[index]
        layer = len(step.suffixes[index]) - 1
        query = torch.full((len(image),), -1, dtype=torch.int64)
        for one in step.solved:
            if one.request == index and layer in one.layers:
                solution = one.solutions[one.layers.index(layer)]
                query[solution.columns + step.targets.offsets[one.image]] = solution.rows
        matcher = request.matchers[-1]
        cost = matcher.cost if isinstance(matcher, CostMatcher) else None
        predictions, batch = request.predictions, request.batch
        device = predictions.logits.device
        found = probe(
            predictions.logits[-1],
            predictions.boxes[-1],
            batch.labels,
            batch.boxes,
            image.to(device, non_blocking=True),
            query.to(device, non_blocking=True),
            cost if isinstance(cost, MatchingCost) else MatchingCost(),
        )
        if step.columns is None:
            return found
        other, unclaimed = step.columns[found.other], step.columns[found.unclaimed_class]
        return Probe(**{**found.__dict__, "other": other, "unclaimed_class": unclaimed})

    def _settle(self) -> None:
        """Turn what the last step fetched into columns."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.ready is not None:
            pending.ready.synchronize()
        arrays = [tensor.numpy() for tensor in pending.tensors]
        if not self._slots:
            self._slots = [name for names in pending.suffixes for name in names]
        labels, seen = arrays[0], arrays[-len(Probe.__dataclass_fields__) :]
        of_pairs = [arrays[1 + 3 * i : 4 + 3 * i] for i in range(len(pending.priced))]
        known = pending.images.annotations >= 0
        columns = self._matches(pending, of_pairs)
        probed = dict(zip(Probe.__dataclass_fields__, seen))
        for name in ("iou", "score", "box", "relabelled"):
            columns[name] = probed[name].astype(np.float16)
        columns["other"] = probed["other"].astype(np.int32)
        columns["label"] = labels.astype(np.int32)
        columns["annotation"] = pending.images.annotations
        columns["row"] = (pending.image.numpy() + self._images).astype(np.int64)
        columns = {name: values[known] for name, values in columns.items()}
        count = len(pending.images.image_ids)
        columns["image_id"] = np.array(pending.images.image_ids, dtype=np.int64)
        columns["step"] = np.full(count, pending.iteration, dtype=np.int32)
        columns["to_file"] = np.array(pending.images.to_file, dtype=np.float32).reshape(count, 4)
        columns["confidence"] = probed["confidence"].astype(np.float32)
        columns["unclaimed_class"] = _filled(probed["unclaimed_class"].astype(np.int32))
        columns["unclaimed_score"] = _filled(probed["unclaimed_score"].astype(np.float16))
        columns["unclaimed_box"] = _filled(probed["unclaimed_box"].astype(np.float16))
        self._parts.append(columns)
        self._images += count
        self._objects += int(known.sum())
        if self._objects >= MOST_OBJECTS:
            self._number += 1
            self._write(f"{pending.iteration + 1:07d}.{self._number}")

    def _matches(self, pending: _Pending, of_pairs: Sequence[Sequence[NDArray[Any]]]) -> Columns:
        """Query, cost, number of queries and price of each target and slot."""
        shape = pending.targets, len(self._slots)
        query = np.full(shape, -1, dtype=np.int32)
        cost = np.full(shape, np.nan, dtype=np.float32)
        price = np.full(shape, np.nan, dtype=np.float32)
        count = np.zeros(shape, dtype=np.uint16)
        start = np.cumsum([0, *(len(names) for names in pending.suffixes)])
        paid = dict(zip(pending.priced, of_pairs))
        places, rows, amounts = [], [], []
        for i, one in enumerate(pending.solved):
            slots = start[one.request] + np.array(one.layers)
            offset = pending.offsets[one.image]
            sizes = [len(solution.rows) for solution in one.solutions]
            columns = torch.cat([solution.columns for solution in one.solutions]).numpy() + offset
            places.append(columns * shape[1] + slots.repeat(sizes))
            rows.append(torch.cat([solution.rows for solution in one.solutions]).numpy())
            amounts.append(paid[i][2] if i in paid else np.full(len(columns), np.nan, dtype=np.float32))
        if places:
            place, amount = np.concatenate(places), np.concatenate(amounts)
            order = np.argsort(-amount, kind="stable")  # of several writes to one place the last and cheapest stays
            query.reshape(-1)[place[order]] = np.concatenate(rows)[order]
            cost.reshape(-1)[place[order]] = amount[order]
            np.add.at(count.reshape(-1), place, 1)
        for stacked, i in zip(_settled(of_pairs), pending.priced):
            one = pending.solved[i]
            if one.is_optimal:
                offset, targets = pending.offsets[one.image], stacked.shape[1]
                price[offset : offset + targets, start[one.request] + np.array(one.layers)] = stacked.T
        price[~np.isfinite(price)] = np.nan
        return {"query": query, "cost": cost.astype(np.float16), "price": price.astype(np.float16), "count": count}

    def flush(self, done: int) -> None:
        """Write what was seen since the last time, after ``done`` steps."""
        self._settle()
        if self._parts:
            self._write(f"{done:07d}")

    def _write(self, until: str) -> None:
        first = self._parts[0]
        columns = {name: np.concatenate([part[name] for part in self._parts]) for name in first}
        columns["slots"] = np.array(self._slots)
        self._parts, self._objects, self._images = [], 0, 0
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, f"matches_{until}.rank{self.rank}.npz")

        def write(file: IO[bytes]) -> None:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]  # its second parameter is a flag by name

        write_atomically(path, write)

    def forget_after(self, done: int) -> None:
        """Delete what was recorded after ``done`` steps: a resumed run records it again."""
        for name in sorted(os.listdir(self.folder)) if os.path.isdir(self.folder) else ():
            match = PART.match(name)
            if match and int(match[1]) > done:
                os.remove(os.path.join(self.folder, name))


def _settled(of_pairs: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[np.float32]]:
    """The prices (L, M) of each stack, all of them solved at once."""
    if not of_pairs:
        return []
    most = max(free.shape[1] for free, _, _ in of_pairs)
    total = sum(len(free) for free, _, _ in of_pairs)
    free = np.full((total, most), np.inf, dtype=np.float32)
    taken = np.full((total, most, most), np.inf, dtype=np.float32)
    first = 0
    places = []
    for one, other, _ in of_pairs:
        layers, targets = one.shape
        free[first : first + layers, :targets] = one
        taken[first : first + layers, :targets, :targets] = other
        places.append((first, layers, targets))
        first += layers
    prices = settle(free, taken)
    return [prices[begin : begin + layers, :targets] for begin, layers, targets in places]


def _filled(values: NDArray[Any]) -> NDArray[Any]:
    """(B, u, ...) with zeros up to UNCLAIMED, for models of fewer queries."""
    missing = UNCLAIMED - values.shape[1]
    return values if not missing else np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)])


def _images_of(batch: Batch) -> _Images:
    ids = []
    for sample in batch:
        instances = sample["instances"]
        if not instances.has("gt_annotation_ids"):
            raise NoAnnotationIds(
                "train.microscope needs to know the annotations of a sample, but the mapper of dataloader.train gives "
                "its instances no gt_annotation_ids; use hdetr_d2.data.DetrDatasetMapper, or train.microscope=False"
            )
        ids.append(instances.gt_annotation_ids.numpy())
    nowhere = (float("nan"),) * 4
    return _Images(
        [int(sample.get("image_id", -1)) for sample in batch],
        [sample.get("to_file") or nowhere for sample in batch],
        np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64),
    )


def _fetch(tensors: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
    """Tensors on the host, and the event after which they are there; None where they are already."""
    if all(tensor.device.type != "cuda" for tensor in tensors):
        return [tensor.cpu() for tensor in tensors], None
    host = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for to, tensor in zip(host, tensors):
        to.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event

"""Looking on at the matching of a training, and keeping what was seen in files."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from hdetr_d2.errors import UserError
from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.output import write_atomically

from .chunk import Chunk, Columns, Images, Seen

FOLDER = "microscope"
"""Of a run's folder."""

PART = re.compile(r"^matches_(\d{7})(\.\d+)?\.rank(\d+)\.npz$")
"""A file with what one process saw until so many steps were done."""

MOST_OBJECTS = 2**18
"""Kept in memory before they are written, also where no checkpoint is due."""

Batch = Sequence[Mapping[str, Any]]


class NoAnnotationIds(UserError, ValueError):
    """Training samples that do not say which annotations they have."""


TOGETHER = 16
"""Steps that are looked at together."""

MOST_NUMBERS = 2**24
"""Of costs and predictions, which steps keep in memory until they are looked at."""


class MatchRecorder:
    """Records matches of every step; a ``MatchObserver`` of the criterion.

    Of every annotation that a step sees, and of every layer: the cheapest query that it got, that pair's cost, how many
    it got, and what one more would cost (``query_prices``); from the last layer of the primary group what ``probe``
    says. Steps only put aside what this is computed from, for up to ``TOGETHER`` of them at once. On a GPU nothing
    waits: numbers are fetched until the next steps are looked at.

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
        self._coming: deque[Images] = deque()
        self._seen: list[Seen] = []
        self._numbers = 0
        self._pending: tuple[Chunk, list[Tensor], Any] | None = None
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
        """Take in a step."""
        images = self._coming.popleft()
        if len(images.annotations) != len(step.targets.labels):
            raise RuntimeError(
                f"{len(step.targets.labels)} targets are matched, of {len(images.annotations)} annotations"
            )
        seen = Seen.of(step, images, self.iteration)
        self._seen.append(seen)
        self._numbers += seen.numel
        if len(self._seen) >= TOGETHER or self._numbers >= MOST_NUMBERS:
            self._look()

    def _look(self) -> None:
        """Compute what there is to say of the steps since the last time, and begin to fetch it."""
        self._settle()
        if not self._seen:
            return
        chunk, self._seen, self._numbers = Chunk(self._seen), [], 0
        self._pending = (chunk, *_fetch(chunk.tensors()))
        if self._pending[2] is None:
            self._settle()

    def _settle(self) -> None:
        """Turn what was fetched into columns."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        chunk, tensors, ready = pending
        if ready is not None:
            ready.synchronize()
        self._slots = self._slots or chunk.slots
        columns = chunk.columns([tensor.numpy() for tensor in tensors], self._images)
        self._parts.append(columns)
        self._images += len(columns["image_id"])
        self._objects += len(columns["annotation"])
        if self._objects >= MOST_OBJECTS:
            self._number += 1
            self._write(f"{chunk.seen[-1].iteration + 1:07d}.{self._number}")

    def flush(self, done: int) -> None:
        """Write what was seen since the last time, after ``done`` steps."""
        self._look()
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


def _images_of(batch: Batch) -> Images:
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
    return Images(
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

"""Which image comes when: an endless sample stream that any position can be looked up in.

The stream is the same for every number of processes and workers and knows no state but a position, which is what
makes a resumed run and a run on other hardware see the same images in the same steps.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


class EpochSampling(ABC):
    """A rule for what one epoch holds. A subclass gets the dataset once and then draws epochs."""

    @abstractmethod
    def start(self, dataset: Sequence[dict[str, Any]]) -> None:
        """Looks at the dataset dicts (counts classes, for example); called once before ``epoch``."""

    @abstractmethod
    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """(L,) int64 indices into the dataset in the order of an epoch; all randomness comes from ``rng``; L >= 1."""


class ShuffledSampling(EpochSampling):
    """Every image once an epoch, in random order."""

    def __init__(self) -> None:
        self._size = 0

    def start(self, dataset: Sequence[dict[str, Any]]) -> None:
        self._size = len(dataset)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self._size)


class SampleStream:
    """The concatenated epochs of a sampling rule.

    Args:
        sampling: started already.
        seed: epoch e is drawn by a generator seeded with (seed, e).
    """

    def __init__(self, sampling: EpochSampling, *, seed: int) -> None:
        self._sampling = sampling
        self._seed = seed

    def __call__(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """Endless pairs (position in the stream, index into the dataset) from position ``start`` on."""
        position, epoch = 0, 0
        while True:
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch])))
            indices = self._sampling.epoch(rng)
            if len(indices) == 0:
                raise ValueError(f"{type(self._sampling).__name__} gave an epoch without samples")
            for offset in range(max(0, start - position), len(indices)):
                yield position + offset, int(indices[offset])
            position += len(indices)
            epoch += 1


class MicroBatchSampler:
    """The share of one process of every micro-batch: endless lists of (position, index).

    Step t takes stream[t * batch_size : (t + 1) * batch_size], cut into ``accumulate`` micro-batches in order; of
    each, rank r of W takes the r-th of W equal slices.

    Args:
        batch_size: images per optimiser step over all ranks and micro-batches.
        start_step: first step.
        with_previous: in the steps for which it says so, every slice begins with the sample before it, in addition;
            before the first of a step comes the step's last.

    Attributes:
        share: samples of this process in a micro-batch.

    Raises:
        ValueError: ``batch_size`` cannot be divided by ``accumulate * world_size``.
    """

    def __init__(
        self,
        stream: SampleStream,
        *,
        batch_size: int,
        accumulate: int,
        rank: int,
        world_size: int,
        start_step: int,
        with_previous: Callable[[int], bool] | None = None,
    ) -> None:
        parts = accumulate * world_size
        if batch_size < 1 or accumulate < 1 or batch_size % parts:
            raise ValueError(
                f"train.batch_size={batch_size} images a step cannot be divided evenly among {world_size} processes "
                f"x train.accumulate={accumulate} micro-batches; use a multiple of {parts}"
            )
        self._stream = stream
        self._micro_batch = batch_size // accumulate
        self._first, self._last = (r * self._micro_batch // world_size for r in (rank, rank + 1))
        self.share = self._last - self._first
        self._batch_size = batch_size
        self._start_step = start_step
        self._with_previous = with_previous

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = self._stream(self._start_step * self._batch_size)
        for step in itertools.count(self._start_step):
            whole = [next(samples) for _ in range(self._batch_size)]
            previous = self._with_previous is not None and self._with_previous(step)
            for offset in range(0, self._batch_size, self._micro_batch):
                first, last = offset + self._first, offset + self._last
                yield [whole[first - 1], *whole[first:last]] if previous else whole[first:last]

"""Loaders for training and evaluation."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from hdetr_d2.errors import UserError
from hdetr_d2.seeding import seeded

from .batch_transforms import BatchTransform
from .context import ContextMapper, Record, SampleContext, StepContext
from .errors import DatasetError, UnusableImageError
from .sampling import EpochSampling, MicroBatchSampler, SampleStream, ShuffledSampling
from .workers import WORKER_TIMEOUT, Failure, WatchedLoader

Mapper = Callable[[Record], Record]

# So many unusable files in a row mean that the folder is broken and not a file.
_MAX_SUBSTITUTIONS = 20

logger = logging.getLogger(__name__)


class _TrainSamples(Dataset[Any]):
    """Maps (stream position, index) to a sample; both together decide everything about it.

    An unusable image file is replaced by the next image of the dataset, the same one in every run, and noted in the
    sample under "skipped_files" for the main process to count.
    """

    def __init__(self, records: Sequence[Record], mapper: Mapper, *, seed: int, batch_size: int) -> None:
        self._records = records
        self._mapper = mapper
        self._seed = seed
        self._batch_size = batch_size
        self._steps_per_epoch = math.ceil(len(records) / batch_size)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> Record | Failure:
        try:
            return self._sample(*key)
        except UserError as error:
            return Failure(error)

    def _sample(self, position: int, index: int) -> Record:
        skipped: list[str] = []
        for shift in range(min(len(self._records), _MAX_SUBSTITUTIONS)):
            record = self._records[(index + shift) % len(self._records)]
            try:
                with seeded(self._seed, position):
                    sample = self._map(record, position)
            except UnusableImageError as error:
                skipped.append(str(error))
                continue
            skipped += sample.pop("skipped_files", ())
            if skipped:
                sample["skipped_files"] = skipped
            return sample
        raise DatasetError(f"{len(skipped)} image files in a row cannot be used, first: {skipped[0]}")

    def _map(self, record: Record, position: int) -> Record:
        if not isinstance(self._mapper, ContextMapper):
            return self._mapper(record)
        epoch = position // self._batch_size / self._steps_per_epoch
        return self._mapper(record, SampleContext(epoch=epoch, dataset=self._records))


class TrainLoader:
    """Endless iterator over the micro-batches of this process, each a list of samples.

    ``loader.batches(start_iter)`` begins at that optimiser step, a step has ``accumulate`` of them; ``iter(loader)``
    begins where the loader was built to.

    Attributes:
        num_images: that the loader draws from.
        num_skipped: how often an unusable image file was replaced so far in this process.
    """

    def __init__(
        self,
        *,
        records: Sequence[Record],
        mapper: Mapper,
        sampling: EpochSampling,
        batch_size: int,
        accumulate: int,
        seed: int,
        num_workers: int,
        start_iter: int,
        batch_transforms: Sequence[BatchTransform] = (),
        worker_timeout: float = WORKER_TIMEOUT,
    ) -> None:
        sampling.start(records)
        self._stream = SampleStream(sampling, seed=seed)
        self._object_counts = np.array(
            [sum(not each.get("iscrowd", 0) for each in record.get("annotations", ())) for record in records]
        )
        self._records = DatasetFromList(list(records), copy=False)
        self._samples = _TrainSamples(self._records, mapper, seed=seed, batch_size=batch_size)
        self._transforms = list(batch_transforms)
        _check_transforms(self._transforms, batch_size)
        self._seed = seed
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._num_workers = num_workers
        self._worker_timeout = worker_timeout
        self._sampler(start_iter)  # refuses an impossible batch size now and not in the first step
        self.num_images = len(records)
        self._start_iter = start_iter
        self.num_skipped = 0
        self._reported: set[str] = set()

    def object_counts(self) -> np.ndarray:
        """(num_images,) how many objects an image has to learn: crowds are not learned."""
        return self._object_counts

    def file_name(self, index: int) -> str:
        """Of the image at ``index`` of `object_counts`."""
        return str(self._records[index].get("file_name", index))

    def _sampler(self, start_iter: int) -> MicroBatchSampler:
        return MicroBatchSampler(
            self._stream,
            batch_size=self._batch_size,
            accumulate=self._accumulate,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            start_step=start_iter,
            with_previous=self._with_previous,
        )

    def _context(self, step: int) -> StepContext:
        epoch = step / math.ceil(self.num_images / self._batch_size)
        return StepContext(seed=self._seed, step=step, epoch=epoch)

    def _with_previous(self, step: int) -> bool:
        return any(transform.needs_previous(self._context(step)) for transform in self._transforms)

    def __iter__(self) -> Iterator[list[Record]]:
        return self.batches(self._start_iter)

    def batches(self, start_iter: int) -> Iterator[list[Record]]:
        """The micro-batches from optimiser step ``start_iter`` on."""
        sampler = self._sampler(start_iter)
        # Workers hand over single samples: all of them work on the next micro-batch together, and no more than two
        # micro-batches wait in shared memory (whose file handles are limited), whatever the number of workers.
        prefetch = max(2, math.ceil(2 * sampler.share / max(self._num_workers, 1)))
        loader = WatchedLoader(
            self._samples,
            limit=self._worker_timeout,
            batch_size=None,
            sampler=itertools.chain.from_iterable(sampler),
            num_workers=self._num_workers,
            prefetch_factor=prefetch if self._num_workers else None,
            collate_fn=unchanged,
            # The base seed of workers is drawn from this, so that the main process's generator is left alone.
            generator=torch.Generator().manual_seed(0),
        )
        samples = iter(loader)
        for index in itertools.count():
            context = self._context(start_iter + index // self._accumulate)
            extra = int(self._with_previous(context.step))
            micro_batch = list(itertools.islice(samples, sampler.share + extra))
            for sample in micro_batch[extra:]:
                self._count_skipped(sample.pop("skipped_files", ()))
            for transform in self._transforms:
                micro_batch = transform(micro_batch, context)
            yield micro_batch

    def _count_skipped(self, messages: Sequence[str]) -> None:
        self.num_skipped += len(messages)
        for message in messages:
            if message not in self._reported:
                self._reported.add(message)
                logger.warning(
                    "Skipped an image in training: %s (%d files unusable so far, skipped %d times)",
                    message,
                    len(self._reported),
                    self.num_skipped,
                )


def _check_transforms(transforms: Sequence[BatchTransform], batch_size: int) -> None:
    """Refuse what would mix wrongly."""
    mixing = [type(transform).__name__ for transform in transforms if transform.mixes]
    if len(mixing) > 1:
        raise ValueError(f"dataloader.train.batch_transforms: only one of {', '.join(mixing)} can be used")
    if mixing and batch_size < 2:
        raise ValueError(f"{mixing[0]} needs two images a step, but train.batch_size={batch_size}")


def unchanged(samples: Any) -> Any:
    """The collate function: a sample stays as it is, and a batch is the list of its samples."""
    return samples


def build_train_loader(
    *,
    dataset: Sequence[Record],
    mapper: Mapper,
    batch_size: int,
    accumulate: int = 1,
    seed: int = 0,
    num_workers: int = 2,
    start_iter: int = 0,
    sampling: EpochSampling | None = None,
    batch_transforms: Sequence[BatchTransform] = (),
    worker_timeout: float = WORKER_TIMEOUT,
) -> TrainLoader:
    """The loader of training.

    Optimiser step t takes samples t * batch_size to (t + 1) * batch_size of one global stream, whatever the number of
    processes, and a sample's augmentation is seeded by (seed, position in the stream), whatever the number of
    workers.

    Args:
        dataset: dataset dicts (``get_dataset``).
        mapper: turns a dataset dict into a sample; must be picklable for worker processes. A `ContextMapper` gets the
            epoch and the dataset too.
        batch_size: images per optimiser step over all processes and accumulation steps.
        accumulate: micro-batches per step.
        seed: of order and augmentation.
        num_workers: loading processes of this process; 0 loads in the process itself.
        start_iter: first optimiser step, for resuming.
        sampling: what an epoch holds; None means every image once in random order.
        batch_transforms: applied in order to the samples of a micro-batch, for example `MixUp` and `MultiScale`.
        worker_timeout: seconds without a sample after which loading processes count as hanging; 0 waits for ever.

    Raises:
        DatasetError: the dataset is empty; while iterating: many image files in a row are unusable.
        ValueError: ``batch_size`` is no multiple of ``accumulate`` times the number of processes.
    """
    if not dataset:
        raise DatasetError("the training dataset has no images")
    return TrainLoader(
        records=dataset,
        mapper=mapper,
        sampling=sampling or ShuffledSampling(),
        batch_size=batch_size,
        accumulate=accumulate,
        seed=seed,
        num_workers=num_workers,
        start_iter=start_iter,
        batch_transforms=batch_transforms,
        worker_timeout=worker_timeout,
    )


class _TestSamples(Dataset[Any]):
    def __init__(self, records: Sequence[Record], mapper: Mapper) -> None:
        self._records = records
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record | Failure:
        try:
            return self._mapper(self._records[index])
        except UserError as error:
            return Failure(error)


def build_test_loader(
    *,
    dataset: Sequence[Record],
    mapper: Mapper,
    batch_size: int = 1,
    num_workers: int = 2,
    worker_timeout: float = WORKER_TIMEOUT,
) -> DataLoader[Any]:
    """The loader of evaluation: every image once, in order, split among the processes.

    An unusable image file ends the evaluation with an UnusableImageError that names it.

    Args:
        dataset: dataset dicts (``get_dataset`` with ``training=False``).
        mapper: turns a dataset dict into a sample.
        batch_size: images per forward pass of one process.
        num_workers: loading processes of this process.
        worker_timeout: seconds without a batch after which loading processes count as hanging; 0 waits for ever.

    Raises:
        DatasetError: the dataset is empty, or ``batch_size`` or ``num_workers`` is no count.
    """
    for key, value, least in (("test.batch_size", batch_size, 1), ("test.num_workers", num_workers, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DatasetError(f"dataloader.{key}={value!r} must be an integer, at least {least}")
    if not dataset:
        raise DatasetError("the evaluation dataset has no images")
    return WatchedLoader(
        _TestSamples(DatasetFromList(list(dataset), copy=False), mapper),
        limit=worker_timeout,
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=num_workers,
        collate_fn=unchanged,
        generator=torch.Generator().manual_seed(0),
    )

"""Failures of the machine, a full disk, used-up memory or a killed loading process, as errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hdetr_d2.errors import UserError

from .run_folder import explain, storage_error


class MachineError(UserError, RuntimeError):
    """The machine has refused something; the message says what, and what helps."""


_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? *(?P<pids>[\d, ]+)\)")

_MEMORY = re.compile(r"can't allocate memory|Unable to allocate|out of memory", re.IGNORECASE)
_ONE_VALUE = "Expected more than 1 value per channel when training"


def shortage_of(error: BaseException) -> str | None:
    """What there is too little of, memory or pixels, and what helps; None where the error is of another kind."""
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _MEMORY.search(text):
        return (
            f"the memory is used up ({text.partition(chr(10))[0][:160] or type(error).__name__}): use a smaller "
            "train.batch_size (train.accumulate keeps the step as it is), dataset.short_side or precision (bf16)"
        )
    if _ONE_VALUE in text:
        return (
            "a batch normalisation has one number a channel, which has no variance: use larger images "
            "(dataset.short_side), more of them in a process (train.batch_size), or fixed norms (train.freeze_bn)"
        )
    return None


@contextmanager
def failures_explained() -> Iterator[None]:
    """Raise a `MachineError` for a failure of the file system or of a loading process; others pass.

    Raises:
        MachineError: instead of the ``OSError``, ``MemoryError``, ``RuntimeError`` or ``ValueError``.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        storage = storage_error(error)
        if storage is not None:
            raise MachineError(
                f"{explain(storage)}; what was written before is whole, and --resume goes on from the latest checkpoint"
            ) from error
        shortage = shortage_of(error)
        if shortage is not None:
            raise MachineError(shortage) from error
        worker = _WORKER.search(str(error))
        if worker is not None:
            raise MachineError(
                f"the loading process {worker['pids'].strip()} died; where nobody killed it, the machine's memory or "
                "its shared memory (/dev/shm) was used up: use fewer dataloader.num_workers, and --resume"
            ) from error
        raise

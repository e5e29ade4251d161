"""Failures of the machine, a full disk or a killed loading process, as errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hdetr_d2.errors import UserError

from .run_folder import explain, storage_error


class MachineError(UserError, RuntimeError):
    """The machine has refused something; the message says what, and what helps."""


_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? *(?P<pids>[\d, ]+)\)")


@contextmanager
def failures_explained() -> Iterator[None]:
    """Raise a `MachineError` for a failure of the file system or of a loading process; others pass.

    Raises:
        MachineError: instead of the ``OSError`` or ``RuntimeError``.
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
        worker = _WORKER.search(str(error))
        if worker is not None:
            raise MachineError(
                f"the loading process {worker['pids'].strip()} died; where nobody killed it, the machine's memory or "
                "its shared memory (/dev/shm) was used up: use fewer dataloader.num_workers, and --resume"
            ) from error
        raise

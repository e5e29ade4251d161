"""The loading processes of a loader: their errors, their signals, and what to do when they do not answer."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader

from hdetr_d2.errors import UserError
from hdetr_d2.processes import is_stopped

logger = logging.getLogger(__name__)

WORKER_TIMEOUT = 600.0
"""Seconds without a sample after which loading processes count as hanging: an image takes a fraction of one."""

_LOOK_SECONDS = 10.0
_TIMED_OUT = "DataLoader timed out"


class LoaderStalledError(UserError, RuntimeError):
    """Loading processes do not answer; the message names them and what may help."""


@dataclass(frozen=True)
class Failure:
    """In place of a sample: what went wrong in a loading process, whose traceback says nothing to a user."""

    error: UserError


def start_worker(index: int) -> None:
    """Leave to the training what signals mean: those for a whole job, Ctrl-C among them, reach its loaders too.

    The training finishes its step first and then ends them. A SIGTERM from the training itself is obeyed.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def look_seconds(num_workers: int, limit: float) -> float:
    """The ``timeout`` of a ``DataLoader`` whose samples `answers` gives out; 0 where it has no processes."""
    return min(_LOOK_SECONDS, limit) if num_workers > 0 and limit > 0 else 0.0


def answers(loader: Any, *, interval: float, limit: float) -> Iterator[Any]:
    """The samples or batches of a ``DataLoader``'s iterator.

    Time in which this process itself was stopped does not count.

    Args:
        loader: an iterator of a ``DataLoader`` whose ``timeout`` is ``interval`` (`look_seconds`).
        limit: seconds to wait for one; 0 waits for ever.

    Raises:
        UserError: a loading process met it.
        LoaderStalledError: none has answered for ``limit`` seconds.
    """
    waited = 0.0
    while True:
        try:
            answer = next(loader)
        except StopIteration:
            return
        except RuntimeError as error:
            if _TIMED_OUT not in str(error):
                raise
            waited += interval
            if waited >= limit:
                raise _give_up(loader, waited) from error
            continue
        waited = 0.0
        for item in answer if isinstance(answer, list) else (answer,):
            if isinstance(item, Failure):
                raise item.error
        yield answer


def _give_up(loader: Any, waited: float) -> LoaderStalledError:
    """End the loading processes, which would keep this one from ending, and say which they were."""
    workers = list(getattr(loader, "_workers", ()))
    stopped = [worker.pid for worker in workers if is_stopped(worker.pid)]
    with contextlib.suppress(Exception):  # PyTorch would raise for each that is killed
        _remove_worker_pids(id(loader))
        loader._worker_pids_set = False
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
    if stopped:
        which = f"process {', '.join(map(str, stopped))} was stopped by a signal (SIGSTOP)"
        remedy = "see what stops processes here"
    else:
        which = f"processes {', '.join(str(worker.pid) for worker in workers)} are there but do not answer"
        remedy = "see whether the disk of the images answers"
    return LoaderStalledError(
        f"no image was loaded for {waited:.0f} s: {which}; {remedy}, and start again with --resume. Where an image "
        "takes so long, set dataloader.train.worker_timeout (dataloader.test.worker_timeout) higher, in seconds"
    )


class WatchedLoader(DataLoader[Any]):
    """A ``DataLoader`` whose loading processes tell a user's mistake in one line and may not hang.

    Args:
        limit: seconds to wait for a batch; 0 waits for ever.
        options: of ``DataLoader``.
    """

    def __init__(self, *args: Any, limit: float = WORKER_TIMEOUT, num_workers: int = 0, **options: Any) -> None:
        interval = look_seconds(num_workers, limit)
        options.update(num_workers=num_workers, timeout=interval, worker_init_fn=start_worker)
        super().__init__(*args, **options)
        self._watch = {"interval": interval, "limit": limit}

    def __iter__(self) -> Any:
        return answers(super().__iter__(), **self._watch)

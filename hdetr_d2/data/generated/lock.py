"""One process at a time draws a dataset; the others wait while it goes on."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hdetr_d2.processes import is_running, is_stopped

from ..errors import DatasetError

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


@contextmanager
def held_alone(path: Path, watched: Sequence[Path], *, seconds: float) -> Iterator[None]:
    """Hold a lock; the operating system lets go of it when the holder dies.

    Args:
        path: of the lock's file.
        watched: the folders that the holder draws into, which show whether it goes on.
        seconds: how long to wait for a holder that draws nothing.

    Raises:
        DatasetError: the holder has drawn nothing for so long.
    """
    import fcntl  # not on Windows, where Detectron2 does not run either

    with path.open("a+") as handle:
        if not _try_lock(handle):
            _wait_for_holder(handle, path, watched, seconds)
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _try_lock(handle: IO[str]) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_holder(handle: IO[str], path: Path, watched: Sequence[Path], seconds: float) -> None:
    """Until the lock is this process's."""
    handle.seek(0)
    holder = handle.read().strip()
    logger.info("Waiting for process %s, which draws %s", holder or "unknown", watched[0])
    seen, since = _drawn(watched), time.monotonic()
    while not _try_lock(handle):
        time.sleep(_LOOK_SECONDS)
        now = _drawn(watched)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > seconds:
            raise DatasetError(
                f"{path} is held by process {holder or 'unknown'}, which has drawn nothing for "
                f"{time.monotonic() - since:.0f} s{_state(holder)}; end it and start again, or choose another "
                "cache folder (dataset.generate.cache_folder, $HDETR_D2_CACHE)"
            )


def _state(pid: str) -> str:
    if not pid.isdigit() or not is_running(int(pid)):
        return ""
    return " (it was stopped by a signal)" if is_stopped(int(pid)) else " (it is running)"


def _drawn(folders: Sequence[Path]) -> tuple[int, ...]:
    """Changes as pictures are added."""
    times = []
    for folder in folders:
        try:
            times.append(folder.stat().st_mtime_ns)
        except OSError:
            times.append(0)
    return tuple(times)

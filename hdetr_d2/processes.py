"""Processes of this machine: which still live, and children that do not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

__all__ = ["die_with_parent", "is_running", "is_stopped", "start_of"]

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, *, poll_seconds: float = 1.0) -> None:
    """Have this process killed as soon as its parent is gone, however the parent ended.

    On Linux the kernel does it; elsewhere, and where it refuses, a thread looks every ``poll_seconds``.

    Args:
        parent: the process id of the parent; where it is gone already, this process ends at once.
    """
    if not _kernel_kills_with_parent():
        threading.Thread(target=_watch, args=(parent, poll_seconds), daemon=True, name="parent-watcher").start()
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _kernel_kills_with_parent() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    except (OSError, AttributeError):  # a C library without prctl
        return False


def _watch(parent: int, poll_seconds: float) -> None:
    while os.getppid() == parent:
        time.sleep(poll_seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def start_of(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since boot; None where the system does not say.

    Together with the id it names a process for good: ids are used again.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_running(pid: int, start: int | None = None) -> bool:
    """Whether the process with this id, and this start if it is given, is there and has not ended."""
    fields = _stat(pid)
    if fields:
        return fields[0] not in ("Z", "X") and (start is None or int(fields[19]) == start)
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP, SIGTSTP) or a debugger and waits to be continued."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in ("T", "t")


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the third, the state, on; empty where there are none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []

"""Memory that a program keeps, where the C library would give it back after every use."""

from __future__ import annotations

import ctypes
import os
import sys

VARIABLE = "HDETR_D2_KEEP_PAGES"

# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_MOST = 2**30
_PAD = 2**26

_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_pages() -> bool:
    """Have this process keep the memory that it frees, up to a gibibyte at the end of its heap.

    By itself glibc returns every large block to the system as soon as it is freed, and the system hands out the next
    one in pages of zeros that are made one by one as they are first touched. A model's temporaries are such blocks: on
    a CPU a good part of a forward pass is spent there. What a process holds falls less between passes, and its peak
    rises where freed blocks lie between others (docs/performance.md has numbers).

    For the start of a program, not for a library. It does nothing elsewhere than on glibc, where
    ``HDETR_D2_KEEP_PAGES`` is 0, or where the user has set glibc's own variables (``MALLOC_TRIM_THRESHOLD_`` and its
    like, or malloc's part of ``GLIBC_TUNABLES``).

    Returns:
        Whether it is so now.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _USERS_OWN)
    if os.environ.get(VARIABLE) == "0" or tuned or not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # others have no such function
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, _MOST), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, _PAD))
    taken = [mallopt(setting, value) == 1 for setting, value in settings]
    return all(taken)

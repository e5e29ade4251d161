"""Who may download: whoever asked for it, by an option, by the environment, or by an answer on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DOWNLOAD = "HDETR_D2_DOWNLOAD"
"""The environment variable: 1 allows downloads, 0 forbids them and their question."""

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


def may_download(what: str, asked: bool | None = None) -> bool:
    """Whether something may be downloaded now.

    Args:
        what: the question's end, such as "r50.pth (159 MB) from https://...".
        asked: what the caller was told; None asks the environment, and then the user where there is a terminal.
    """
    if asked is not None:
        return asked
    told = os.environ.get(DOWNLOAD, "").strip().lower()
    if told in _YES or told in _NO:
        return told in _YES
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"Download {what}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def allow_downloads() -> Iterator[None]:
    """Allow downloads in this process, and in those that it starts, while the context lasts."""
    former = os.environ.get(DOWNLOAD)
    os.environ[DOWNLOAD] = "1"
    try:
        yield
    finally:
        if former is None:
            os.environ.pop(DOWNLOAD, None)
        else:
            os.environ[DOWNLOAD] = former

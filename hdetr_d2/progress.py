"""How long work goes on: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

PLAIN_PERIOD = 10.0
"""Seconds between two plain lines."""


def progress(items: Iterable[T], *, what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and say how far it is, on standard error.

    Args:
        items: what is worked through.
        what: the work, such as "detecting".
        unit: of one item, such as "image".
        total: how many there are; None where nobody knows, as of a camera.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, unit=unit, total=total, leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= PLAIN_PERIOD:
            last = now
            _say(what, unit, done, total, now - start)
    if done:
        _say(what, unit, done, total, time.monotonic() - start)


def _say(what: str, unit: str, done: int, total: int | None, seconds: float) -> None:
    of_total = f" of {total}" if total else ""
    speed = done / max(seconds, 1e-9)
    left = f", {(total - done) / speed:.0f} s left" if total and total > done else ""
    sys.stderr.write(f"{what}: {done}{of_total} {unit}s, {speed:.1f} {unit}s/s{left}\n")
    sys.stderr.flush()


@contextmanager
def bytes_progress(*, what: str, done: int = 0, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Say how far a transfer is, on standard error.

    Args:
        what: the work, such as "downloading r50.pth".
        done: bytes that are there already.
        total: bytes in all; None where nobody knows.

    Yields:
        What to call with the number of bytes that have come since.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(desc=what, unit="B", unit_scale=True, initial=done, total=total, leave=False, dynamic_ncols=True)
        with bar:
            yield bar.update
        return
    start = last = time.monotonic()
    first = done

    def tell(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= PLAIN_PERIOD:
            last = now
            _say_bytes(what, done, total, (done - first) / max(now - start, 1e-9))

    yield tell
    _say_bytes(what, done, total, (done - first) / max(time.monotonic() - start, 1e-9))


def _say_bytes(what: str, done: int, total: int | None, speed: float) -> None:
    of_total = f" of {megabytes(total)}" if total else ""
    left = f", {(total - done) / speed:.0f} s left" if total and total > done and speed else ""
    sys.stderr.write(f"{what}: {megabytes(done)}{of_total}, {megabytes(int(speed))}/s{left}\n")
    sys.stderr.flush()


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"

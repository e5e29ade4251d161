"""Faults of many items, found kind by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Faults:
    """Which rows are faulty and why; the first fault found for a row counts."""

    def __init__(self, count: int) -> None:
        self.bad = np.zeros(count, dtype=bool)
        self.counts: Counter[str] = Counter()
        self._first: tuple[int, str] = (count, "")

    def add(self, kind: str, faulty: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        """Note a kind of fault.

        Args:
            kind: as it is counted, "of unknown images".
            faulty: (count,), the rows that have it.
            describe: what is wrong with a row, asked for the first alone.
        """
        rows = np.flatnonzero(faulty & ~self.bad)
        if not len(rows):
            return
        self.counts[kind] += len(rows)
        if rows[0] < self._first[0]:
            self._first = int(rows[0]), describe(int(rows[0]))
        self.bad |= faulty

    @property
    def first(self) -> tuple[int, str]:
        """Row and description of the fault that comes first in the file."""
        return self._first

    def summary(self) -> str:
        """How many of which kind."""
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common())

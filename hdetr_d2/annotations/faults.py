"""Faults of many items, found kind by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Faults:
    """Which rows are faulty and why; the first fault found for a row counts.

    Args:
        count: of the rows.
        keep: of how many rows of each kind the description is kept.

    Attributes:
        bad: (count,) bool.
        counts: rows of each kind.
        described: row -> what is wrong with it, for the first ``keep`` rows of each kind.
    """

    def __init__(self, count: int, *, keep: int = 1) -> None:
        self.bad = np.zeros(count, dtype=bool)
        self.counts: Counter[str] = Counter()
        self.described: dict[int, str] = {}
        self._keep = keep

    def add(self, kind: str, faulty: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        """Note a kind of fault.

        Args:
            kind: as it is counted, "of unknown images".
            faulty: (count,), the rows that have it.
            describe: what is wrong with a row, asked for those that are kept.
        """
        rows = np.flatnonzero(faulty & ~self.bad)
        if not len(rows):
            return
        self.counts[kind] += len(rows)
        for row in rows[: self._keep].tolist():
            self.described[row] = describe(row)
        self.bad |= faulty

    @property
    def first(self) -> tuple[int, str]:
        """Row and description of the fault that comes first in the file."""
        row = min(self.described)
        return row, self.described[row]

    def summary(self) -> str:
        """How many of which kind."""
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common())

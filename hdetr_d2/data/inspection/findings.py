"""What is found in a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["hurts", "note"]
"""Something that training refuses or that makes its result worse or wrong, or something to know."""

KEPT = 1000
"""Examples of a finding that are kept."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that was found.

    Args:
        kind: a word for programs, such as "duplicate-boxes".
        severity: whether it hurts.
        split: where; "" for what is between splits.
        what: a sentence's beginning that follows its count: "boxes are there twice".
        count: how many.
        examples: where they are, file and line or image; the first `KEPT`.
    """

    kind: str
    severity: Severity
    split: str
    what: str
    count: int
    examples: tuple[str, ...]


def found(kind: str, severity: Severity, split: str, what: str, examples: Iterable[str]) -> list[Finding]:
    """A finding with all its examples; none without any."""
    every = list(examples)
    if not every:
        return []
    return [
        Finding(kind=kind, severity=severity, split=split, what=what, count=len(every), examples=tuple(every[:KEPT]))
    ]

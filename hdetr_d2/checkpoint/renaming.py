"""Renaming state-dict keys by a table that works in both directions."""

import re
from collections.abc import Iterable


class KeyTable:
    """Pairs of key prefixes, ``*`` standing for a number, such as ``("layers.*.norm1.", "layers.*.attn_norm.")``.

    The longest prefix that fits wins. A ``*`` on one side is the same number on the other.

    Args:
        pairs: (theirs, ours).
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = list(pairs)
        for theirs, ours in pairs:
            if theirs.count("*") != ours.count("*"):
                raise ValueError(f"KeyTable: {theirs!r} and {ours!r} differ in their number of wildcards")
        self._to_ours = _compile(pairs)
        self._to_theirs = _compile((ours, theirs) for theirs, ours in pairs)

    def to_ours(self, key: str) -> str | None:
        """Our name of their key, None where the table has none."""
        return _rename(key, self._to_ours)

    def to_theirs(self, key: str) -> str | None:
        """Their name of our key, None where the table has none."""
        return _rename(key, self._to_theirs)


def _compile(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    ordered = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
    return [(re.compile(re.escape(source).replace(r"\*", r"(\d+)")), target) for source, target in ordered]


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, target in rules:
        match = pattern.match(key)
        if match:
            for number in match.groups():
                target = target.replace("*", number, 1)
            return target + key[match.end() :]
    return None

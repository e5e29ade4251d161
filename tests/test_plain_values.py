"""Values of json, read as what they must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hdetr_d2.plain_values import items, mapping, number, numbers, read_entries, text, truth, whole


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (text, "Käse", "Käse"),
        (whole, 3, 3),
        (number, 3, 3.0),
        (truth, False, False),
        (mapping, {"a": 1}, {"a": 1}),
        (items, (1, 2), [1, 2]),
        (numbers, [1, 2.5], (1.0, 2.5)),
    ],
)
def test_what_is_of_the_kind_is_given(read: Callable[[Any], Any], value: Any, expected: Any) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (text, (None, 3, b"a", ["a"])),
        (whole, (None, True, 1.0, "1")),
        (number, (None, True, "1", float("nan"), float("inf"), [1])),
        (truth, (None, 0, "false")),
        (mapping, (None, [], "a")),
        (items, (None, "ab", b"ab", 3, {"a": 1})),
        (numbers, (None, [None], ["1"], [float("nan")])),
    ],
)
def test_what_is_not_is_refused(read: Callable[[Any], Any], values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"is not|neither"):
            read(value)


def test_entries_are_told_by_their_keys_and_unknown_ones_left_out() -> None:
    assert read_entries({"a": 1, "more": 2}, {"a": whole, "b": text}) == {"a": 1}
    with pytest.raises(ValueError, match="b: 3 is not a text"):
        read_entries({"a": 1, "b": 3}, {"a": whole, "b": text})

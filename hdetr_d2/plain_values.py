"""What json or a checkpoint holds, read as what it must be; what is wrong is told by its key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["items", "mapping", "number", "numbers", "read_entries", "text", "truth", "whole"]


def read_entries(content: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The entries that are there, each as its reader gives it; those that have no reader are left out.

    Raises:
        ValueError: one is not what it must be; the message names it.
    """
    found: dict[str, Any] = {}
    for name, read in readers.items():
        if name in content:
            try:
                found[name] = read(content[name])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from error
    return found


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def whole(value: Any) -> int:
    """An integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not an integer")
    return value


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def truth(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def mapping(value: Any) -> dict[str, Any]:
    """A mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a mapping")
    return dict(value)


def items(value: Any) -> list[Any]:
    """A list."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{value!r} is not a list")
    return list(value)


def numbers(value: Any) -> tuple[float, ...]:
    """A list of finite numbers."""
    return tuple(number(each) for each in items(value))

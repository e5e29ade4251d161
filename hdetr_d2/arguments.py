"""Checks of constructor arguments: a message of one line that names the argument and what it may be."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeGuard, get_args

from hdetr_d2.errors import UserError

__all__ = ["ArgumentError", "Score", "check_choice", "check_positive", "check_whole", "check_within"]

Score = Literal["sigmoid", "softmax"]
"""What class scores are: independent ones, or one distribution over classes and "no object"."""


class ArgumentError(UserError, ValueError):
    """An argument that makes no sense."""


def check_choice(owner: object, choices: Any, /, **values: object) -> None:
    """Refuse what is not among the choices of a ``Literal``.

    Args:
        owner: whose arguments these are.
        choices: a ``Literal`` of strings.
        values: the arguments by name.
    """
    allowed: Sequence[str] = get_args(choices)
    for name, value in values.items():
        if value not in allowed:
            raise ArgumentError(f"{_name(owner)}: {name} must be one of {', '.join(allowed)}, got {value!r}")


def check_whole(owner: object, least: int, hint: str = "", /, **values: object) -> None:
    """Refuse what is no whole number of at least ``least``; the hint says what to do about one that is less."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ArgumentError(f"{_name(owner)}: {name} must be a whole number of at least {least}, got {value!r}")
        if value < least:
            message = f"{_name(owner)}: {name} must be at least {least}, got {value}"
            raise ArgumentError(f"{message}; {hint}" if hint else message)


def check_within(owner: object, least: float, most: float, /, **values: object) -> None:
    """Refuse what is no finite number of [``least``, ``most``]; ``most`` may be infinite."""
    for name, value in values.items():
        if not _is_finite(value) or not least <= value <= most:
            bounds = f"at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
            raise ArgumentError(f"{_name(owner)}: {name} must be a number {bounds}, got {value!r}")


def check_positive(owner: object, /, **values: object) -> None:
    """Refuse what is no finite number above 0."""
    for name, value in values.items():
        if not _is_finite(value) or not value > 0:
            raise ArgumentError(f"{_name(owner)}: {name} must be positive, got {value!r}")


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _name(owner: object) -> str:
    return owner if isinstance(owner, str) else type(owner).__name__

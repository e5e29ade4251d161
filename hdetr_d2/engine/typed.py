"""A node of a config as a checked dataclass: types, choices and bounds are those of its annotations."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from .errors import ConfigError
from .hints import Hint, alternatives, describe, fits, is_call, items_hint, kinds

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """In an annotation, ``Annotated[int, Bounds(1)]``: the numbers that make sense.

    Args:
        low, high: the smallest and the largest.
        above: whether ``low`` itself makes no sense, and likewise ``below`` for ``high``.
        infinite: whether infinity does.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False

    def allow(self, value: float) -> bool:
        """Whether the number makes sense; NaN never does."""
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return over and under and (self.infinite or abs(value) != math.inf)

    def demand(self, value: float) -> str:
        """What comes after "must" where ``value`` is not allowed."""
        if value > self.low and not self.infinite and value == math.inf:
            return "be finite"
        if value > self.low or (value == self.low and not self.above):
            return f"be {'less than' if self.below else 'at most'} {_written(self.high)}"
        if self.low == 0:
            return "be positive" if self.above else "not be negative"
        return "be finite" if self.low == -math.inf else f"be at least {_written(self.low)}"


def _written(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


@dataclass(frozen=True)
class Note:
    """In an annotation, what a message about a wrong value says besides."""

    text: str


AtLeastOne = Annotated[int, Bounds(1, 2**31 - 1)]
Count = Annotated[int, Bounds(0, 2**31 - 1)]
Positive = Annotated[float, Bounds(0, above=True)]
NotNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]


def unknown_key_hint(key: str, known: Iterable[str]) -> str:
    """What to say after "no such key": the nearest names, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are: {', '.join(known)}" if known else "there are none"


def from_mapping(cls: type[T], node: Mapping[str, Any], where: str, *, open: bool = False) -> T:
    """Build the dataclass ``cls`` from a config node, refusing unknown, missing, wrongly typed and senseless fields.

    Args:
        node: a resolved mapping, with nested mappings for nested dataclasses.
        where: the node's dotted name, for messages.
        open: whether further keys are the user's own and left out.

    Raises:
        ConfigError: the message names the key.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    for key in node:
        if key not in fields and not open:
            raise ConfigError(f"{where}.{key} is not a setting; {unknown_key_hint(str(key), fields)}")
    missing = sorted(
        name for name, field in fields.items() if name not in node and field.default is dataclasses.MISSING
    )
    if missing:
        file = where.partition(".")[0]
        raise ConfigError(f"{where} lacks {', '.join(missing)}; start from configs/common/{file}.py")
    return cls(**{name: convert(hints[name], node[name], f"{where}.{name}") for name in fields if name in node})


def convert(hint: Hint, value: Any, where: str) -> Any:
    """``value`` as the annotation ``hint`` has it: integers widen to floats, lists become tuples, paths text.

    Raises:
        ConfigError: it is of another type, none of the choices, or out of bounds.
    """
    if isinstance(value, os.PathLike) and str in alternatives(hint):
        value = os.fspath(value)
    dataclasses_allowed = [member for member in alternatives(hint) if dataclasses.is_dataclass(member)]
    if dataclasses_allowed and not (value is None and fits(hint, None)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping{_or_null(hint)}, not {shown(value)}")
        return from_mapping(typing.cast("type[Any]", dataclasses_allowed[0]), value, where)
    # a call may give any value to what a node calls, but nothing is called in a setting
    called = is_call(value) and not kinds(hint) & {"mapping", "any"}
    if called or not fits(hint, value):
        (first, *others) = alternatives(hint)
        plain = first in (int, float, str, bool) and not others
        kind = f"of type {first.__name__}" if plain else describe(hint)
        raise ConfigError(f"{where} must be {kind}, not {shown(value)}{_note(hint)}")
    if isinstance(value, list):
        return tuple(convert(items_hint(hint), item, where) for item in value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        bounds = bounds_of(hint)
        if not bounds.allow(value):
            raise ConfigError(f"{where} must {bounds.demand(value)}, not {shown(value)}")
        return float(value) if float in alternatives(hint) else value
    return value


def bounds_of(hint: Hint) -> Bounds:
    """Those that the annotation states, else those of any number."""
    return next((extra for extra in _extras(hint) if isinstance(extra, Bounds)), Bounds())


def _note(hint: Hint) -> str:
    return "".join(f"; {extra.text}" for extra in _extras(hint) if isinstance(extra, Note))


def _extras(hint: Hint) -> list[object]:
    """What `Annotated` adds, in a union too."""
    annotated = [member for member in (hint, *typing.get_args(hint)) if typing.get_origin(member) is Annotated]
    return [extra for member in annotated for extra in typing.get_args(member)[1:]]


def shown(value: object) -> str:
    """A value for a message: as it is written on the command line, and short."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _or_null(hint: Hint) -> str:
    return " or null" if fits(hint, None) else ""

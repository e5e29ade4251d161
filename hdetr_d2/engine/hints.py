"""What a place in a config may hold, read from the annotations of what its node calls."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, TypeGuard

from detectron2.utils.registry import locate

from hdetr_d2.data import get_dataset, register_dataset

from .errors import ConfigError

Hint: TypeAlias = Any
"""An annotation; None where nothing is known."""

_SEQUENCES = (list, tuple, set, Sequence, Iterable, Collection, Iterator)
_MAPPINGS = (dict, Mapping)


def is_call(node: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a node of a config, as a plain mapping or not, describes a call."""
    return isinstance(node, Mapping) and "_target_" in node


def target_of(node: Mapping[Any, Any], where: str) -> Callable[..., Any]:
    """What the node calls.

    Args:
        where: the node's dotted name, for messages.

    Raises:
        ConfigError: it cannot be imported or called.
    """
    target = node["_target_"]
    if isinstance(target, str):
        try:
            target = locate(target)
        except Exception as error:  # an import runs any code
            raise ConfigError(f"{where}: {node['_target_']} cannot be imported: {error}") from error
    if not callable(target):
        raise ConfigError(f"{where}: {node['_target_']!r} is nothing that can be called")
    return typing.cast("Callable[..., Any]", target)


def name_of(target: Callable[..., Any]) -> str:
    """Its own name, for messages."""
    return str(getattr(target, "__qualname__", target))


@cache
def parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """By name; nothing where it has no signature."""
    try:
        found = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return {}
    if target in _HANDS_ON and _takes_more(found):
        found = {name: parameter for name, parameter in found.items() if parameter.kind is not _MORE}
        found = {**parameters(_HANDS_ON[target]), **found}
    return found


_MORE = inspect.Parameter.VAR_KEYWORD

_HANDS_ON: Mapping[Callable[..., Any], Callable[..., Any]] = {get_dataset: register_dataset}
"""Functions that hand what they do not know on to another."""


def _takes_more(found: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is _MORE for parameter in found.values())


def takes_any(target: Callable[..., Any]) -> bool:
    """Whether it takes arguments of any name, or none is known."""
    found = parameters(target)
    return not found or _takes_more(found)


def argument_names(target: Callable[..., Any]) -> list[str]:
    """The arguments that it can be given by name."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in parameters(target).items() if parameter.kind in named]


def required_names(target: Callable[..., Any]) -> list[str]:
    """Those among them without which it cannot be called."""
    found = parameters(target)
    return [name for name in argument_names(target) if found[name].default is inspect.Parameter.empty]


@cache
def argument_hints(target: Callable[..., Any]) -> Mapping[str, Hint]:
    """The annotations of its arguments, those that can be read."""
    if target in _HANDS_ON:
        return {**argument_hints(_HANDS_ON[target]), **_hints_of(target)}
    return _hints_of(target)


def _hints_of(target: Callable[..., Any]) -> Mapping[str, Hint]:
    function: Any = vars(target).get("__init__", target) if isinstance(target, type) else target
    if isinstance(target, type) and function is target:
        function = getattr(target, "__init__", target)
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return dict(_readable_hints(function))


def _readable_hints(function: Any) -> Iterator[tuple[str, Hint]]:
    """One by one, because a name that is imported for type checkers alone hides all of them."""
    for name, annotation in getattr(function, "__annotations__", {}).items():
        if not isinstance(annotation, str):
            yield name, annotation
            continue
        try:
            yield name, eval(annotation, getattr(function, "__globals__", {}))  # as typing does
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue


def _origin(hint: Hint) -> Any:
    """As ``typing.get_origin``, whose stubs say that it is None or a ParamSpec."""
    return typing.get_origin(hint)


def alternatives(hint: Hint) -> tuple[Hint, ...]:
    """The members of a union, or the annotation alone; without `Annotated`."""
    if _origin(hint) is Annotated:
        return alternatives(typing.get_args(hint)[0])
    if isinstance(hint, types.UnionType) or _origin(hint) is typing.Union:
        return tuple(inner for member in typing.get_args(hint) for inner in alternatives(member))
    return (hint,)


def items_hint(hint: Hint) -> Hint:
    """Of the items of a list or of the values of a mapping; None where it is not known."""
    for member in alternatives(hint):
        origin, arguments = _origin(member), typing.get_args(member)
        if origin in _MAPPINGS and len(arguments) == 2:
            return arguments[1]
        if origin in _SEQUENCES and arguments:
            return arguments[0] if len(set(arguments) - {Ellipsis}) == 1 else None
    return None


def key_hint(node: object, hint: Hint, key: str) -> Hint:
    """What ``node``, a plain mapping or list under ``hint``, may hold at ``key``."""
    if isinstance(node, Mapping) and "_target_" in node:
        try:
            return argument_hints(target_of(node, "")).get(key)
        except ConfigError:
            return None
    for member in alternatives(hint):
        if dataclasses.is_dataclass(member) and isinstance(member, type):
            return typing.get_type_hints(member, include_extras=True).get(key)
    return items_hint(hint)


def classes(hint: Hint) -> list[type[Any]]:
    """The classes of objects that the annotation allows, plain values and containers left out."""
    plain = (str, int, float, bool, bytes, type(None), object, *_SEQUENCES, *_MAPPINGS)
    return [
        member
        for member in alternatives(hint)
        if isinstance(member, type) and member not in plain and _origin(member) is None
    ]


def kinds(hint: Hint) -> set[str]:
    """Which kinds of plain value the annotation allows: str, bool, number, null, strings, list, mapping, object."""
    return {kind for member in alternatives(hint) for kind in _kind(member)}


def _kind(hint: Hint) -> set[str]:
    origin = _origin(hint)
    if hint is None or hint is type(None):
        return {"null"}
    if origin is Literal:
        return {"str"} if all(isinstance(value, str) for value in typing.get_args(hint)) else {"any"}
    if hint in (Any, object):
        return {"any"}
    if hint is str or hint is os.PathLike or origin is os.PathLike:
        return {"str"}
    if hint is bool:
        return {"bool"}
    if hint in (int, float):
        return {"number"}
    if hint in _SEQUENCES or origin in _SEQUENCES:
        return {"strings"} if kinds(items_hint(hint)) == {"str"} else {"list"}
    if hint in _MAPPINGS or origin in _MAPPINGS or dataclasses.is_dataclass(hint):
        return {"mapping"}
    return {"object"}


def fits(hint: Hint, value: object) -> bool:
    """Whether a plain value of a config (what OmegaConf resolves to, nodes as mappings) is what ``hint`` allows.

    Integers count as floats, lists as tuples, and objects and the results of calls as what they claim to be.
    """
    return hint is None or any(_fits(member, value) for member in alternatives(hint))


def _fits(hint: Hint, value: object) -> bool:
    origin = _origin(hint)
    if hint in (Any, object) or isinstance(hint, typing.TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(hint))
    if isinstance(value, Mapping):
        return _mapping_fits(hint, value)
    if isinstance(value, list):
        return _list_fits(hint, value)
    if not (value is None or isinstance(value, (bool, int, float, str))):
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, bytes):
        return isinstance(value, hint)
    if hint is os.PathLike or origin is os.PathLike:
        return isinstance(value, str)
    return origin is None and not isinstance(hint, type)


def _mapping_fits(hint: Hint, value: Mapping[Any, Any]) -> bool:
    if is_call(value):
        target = value["_target_"]
        try:
            target = locate(target) if isinstance(target, str) else target
        except Exception:  # told elsewhere
            return True
        if not isinstance(target, type) or not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
            return True
        return hint in (*_SEQUENCES, *_MAPPINGS) or issubclass(target, hint)
    if hint in _MAPPINGS or _origin(hint) in _MAPPINGS:
        return all(fits(items_hint(hint), inner) for inner in value.values())
    return dataclasses.is_dataclass(hint)


def _list_fits(hint: Hint, value: list[Any]) -> bool:
    origin, arguments = _origin(hint), typing.get_args(hint)
    if hint in _SEQUENCES:
        return True
    if origin not in _SEQUENCES:
        return False
    if origin is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(fits(*pair) for pair in zip(arguments, value))
    return all(fits(arguments[0], inner) for inner in value)


def describe(hint: Hint) -> str:
    """The annotation in the words of a message."""
    members = [member for member in alternatives(hint) if kinds(member) != {"object"}] or alternatives(hint)
    return " or ".join(dict.fromkeys(_describe(member) for member in members))


def _describe(hint: Hint) -> str:
    origin, arguments = _origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return "null"
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) if not isinstance(choice, str) else choice for choice in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(describe(inner) for inner in arguments)}"
    if origin in _SEQUENCES:
        return "a list" if Any in arguments else f"a list of {describe(arguments[0])}"
    if origin in _MAPPINGS or dataclasses.is_dataclass(hint):
        return "a mapping"
    if origin is abc.Callable:
        return "a function or a call, L(...)(...)"
    names = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    if isinstance(hint, type):
        return names.get(hint, f"of type {hint.__name__}")
    return str(hint).removeprefix("typing.")

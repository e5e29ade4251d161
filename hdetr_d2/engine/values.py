"""The value that a person means by the text behind ``key=``.

Hydra's grammar reads numbers, lists and mappings. What it is strict about, people are not: paths have brackets, commas
and letters of any language, ``None``, ``no`` and ``off`` are not names. Which is meant follows from what the key holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from .errors import ConfigError
from .hints import Hint, items_hint, key_hint, kinds

NULLS = frozenset({"null", "none", "~"})
TRUTHS = {
    "true": True, "yes": True, "on": True, "y": True, "1": True,
    "false": False, "no": False, "off": False, "n": False, "0": False,
}  # fmt: skip


def wanted_kinds(hint: Hint, current: object) -> set[str]:
    """Which kinds of value (as `hints.kinds` calls them) a place takes: by its annotation, else like its value now."""
    found = kinds(hint) if hint is not None else set()
    if found - {"any", "null"}:
        return found
    if isinstance(current, bool):
        return {"bool"}
    if isinstance(current, (int, float)):
        return {"number"}
    if isinstance(current, str) and "${" not in current:
        return {"str"}
    if isinstance(current, list):
        return {"strings"} if current and all(isinstance(item, str) for item in current) else {"list"}
    return {"mapping"} if isinstance(current, Mapping) else set()


def read_value(text: str, hint: Hint, current: object) -> Any:
    """The value of ``text`` for a place with the annotation ``hint`` that holds ``current`` (plain) now.

    Raises:
        ConfigError: it cannot be read as what the place takes; the message does not name the key.
    """
    text = text.strip()
    wanted = wanted_kinds(hint, current)
    if text.lower() in NULLS:
        return None
    if "bool" in wanted and "number" not in wanted and text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    bracketed = text.startswith(("[", "{"))
    if "strings" in wanted and text.startswith("["):
        return _strings(text)
    if "str" in wanted and "number" not in wanted and not (bracketed and wanted & {"list", "mapping", "any"}):
        return _literal(text)
    free = "str" in wanted or not (wanted - {"any", "null", "object"})
    try:
        return _tidy(_parse(text), hint)
    except ConfigError:
        if free and not bracketed:
            return _literal(text)
        raise


def _parse(text: str) -> Any:
    """By Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
        if override.is_sweep_override():
            raise ConfigError("a list is written [a,b]")
        return override.value()
    except HydraException as error:
        raise ConfigError(f"the value is not of the grammar: {error}") from error
    except RecursionError as error:
        raise ConfigError("the value is nested too deeply") from error


def _tidy(value: Any, hint: Hint) -> Any:
    """Words for null and booleans below the surface of a list or a mapping."""
    if isinstance(value, dict):
        return {key: _tidy(inner, key_hint(value, hint, str(key))) for key, inner in value.items()}
    if isinstance(value, list):
        return [_tidy(inner, items_hint(hint)) for inner in value]
    if isinstance(value, str):
        wanted = kinds(hint) if hint is not None else set()
        if value.lower() in NULLS:
            return None
        if "bool" in wanted and value.lower() in TRUTHS:
            return TRUTHS[value.lower()]
        return value if "${" in value else _home(value)
    return value


def _literal(text: str) -> str:
    """The text itself, without quotes around it, and with ``~/`` at its beginning expanded."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            parsed = _parse(text)
        except ConfigError:
            parsed = None
        if isinstance(parsed, str):
            return parsed
    return _home(text)


def _home(text: str) -> str:
    # a shell does not expand what stands behind "key="
    return os.path.expanduser(text) if text.startswith("~") else text


def _strings(text: str) -> list[str]:
    """``[a, 'b, c', (d)]`` as texts, whatever else their words could mean."""
    try:
        parsed = _parse(text)
    except ConfigError:
        parsed = None
    if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):
        return [_home(item) for item in parsed]
    if not text.endswith("]"):
        raise ConfigError('a list is written [a,b]; the "]" at its end is missing')
    return [_literal(item) for item in _split(text[1:-1])]


def _split(text: str) -> list[str]:
    """At the commas outside of quotes and brackets."""
    parts, start, depth, quote = [], 0, 0, ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not text[start:index].strip():  # an apostrophe within a word is a letter
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth = max(0, depth - 1)
        elif letter == "," and not depth:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part] if parts != [""] else []

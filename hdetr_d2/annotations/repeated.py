"""Keys that a json object has twice: parsers take the last without a word, and part of what a file says is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET

from .errors import DatasetError
from .schema import Annotation, Content, Image
from .table import Fault

_LARGE = 2**24
"""Bytes of a file that is parsed once more only where its counts of keys ask for it."""


class _Object(dict[str, Any]):
    """A json object, and what it says twice in different ways."""

    repeated: tuple[str, ...] = ()


def require_lists_once(source: str, text: bytes) -> None:
    """Refuse a file whose lists were joined by hand: all but the last would be left out.

    Args:
        source: what messages call it.
        text: the file.

    Raises:
        DatasetError: naming the list.
    """
    if all(_count(text, name) < 2 for name in Content.__struct_fields__):
        return
    root: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:  # that of the root comes last
        root[:] = [key for key, _ in pairs]

    try:
        json.loads(text, object_pairs_hook=note)
    except (ValueError, RecursionError):
        return  # what is no json is told as such
    for name in Content.__struct_fields__:
        if root.count(name) > 1:
            raise DatasetError(f'{source}: has "{name}" {root.count(name)} times; make one list of them')


def repeated_keys(source: str, text: bytes, content: Content) -> dict[int, Fault]:
    """What is wrong with annotations that say a thing twice and differently, by row.

    Keys are counted first, which costs little beside parsing.

    Args:
        source: what messages call the file.
        text: the file.
        content: of the file.

    Raises:
        DatasetError: an image or a category says a thing twice and differently.
    """
    if not _may_repeat(text, content):
        return {}
    try:
        parsed = json.loads(text, object_pairs_hook=_noted)
    except (ValueError, RecursionError):
        return {}
    return faults_of_repeats(source, parsed)


def _may_repeat(text: bytes, content: Content) -> bool:
    """Whether a key is there more often than there are objects to have it."""
    for record, items in ((Annotation, content.annotations), (Image, content.images)):
        for key in record.__struct_fields__:
            if key != "id" and _count(text, key) > sum(_is_given(getattr(item, key)) for item in items):
                return True
    if len(text) > _LARGE:  # licences have ids and names too, so that every large file would be parsed again
        return False
    return _count(text, "name") > len(content.categories) or (
        _count(text, "id") > len(content.annotations) + len(content.images) + len(content.categories)
    )


def parse_noting(text: bytes) -> Any:
    """``json.loads``, for `faults_of_repeats`."""
    return json.loads(text, object_pairs_hook=_noted)


def faults_of_repeats(source: str, parsed: Any) -> dict[int, Fault]:
    """The same of what `parse_noting` has read."""
    if not isinstance(parsed, Mapping):
        return {}
    for name, what in (("images", "image"), ("categories", "category")):
        for row, repeated in _repeats(parsed.get(name)):
            raise DatasetError(f"{source}: {what} number {row} has {_said(repeated)}")
    fields = Annotation.__struct_fields__
    return {
        row: Fault("with a key twice", f"has {_said(repeated)}")
        for row, repeated in _repeats(parsed.get("annotations"))
        if any(key in fields for key in repeated)
    }


def _repeats(items: Any) -> Iterable[tuple[int, tuple[str, ...]]]:
    rows = items if isinstance(items, list) else []
    return ((row, item.repeated) for row, item in enumerate(rows) if isinstance(item, _Object) and item.repeated)


def _said(repeated: tuple[str, ...]) -> str:
    return f'"{repeated[0]}" twice, with different values; keep the right one'


def _noted(pairs: list[tuple[str, Any]]) -> _Object:
    read = _Object(pairs)
    if len(read) < len(pairs):
        several = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        read.repeated = tuple(key for key in several if any(k == key and v != read[key] for k, v in pairs))
    return read


def _is_given(value: object) -> bool:
    return value is not None and value is not UNSET


def _count(text: bytes, key: str) -> int:
    return text.count(f'"{key}"'.encode())

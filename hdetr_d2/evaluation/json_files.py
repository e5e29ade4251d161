"""Reading long lists of json without holding them whole.

orjson reads five times as fast as Python's own reader, but refuses NaN and Infinity, which some programs write: what it
refuses is read again by Python's, so that the check of the values can say where they are.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import orjson

_BLOCK = 2**19  # bytes; as Python objects 4 MB, which stay in the processor's cache: twice as fast as 16 MB at once
_WINDOW = 64  # bytes that a separator between two objects may take, spaces and line breaks included


def read_list(path: str | os.PathLike[str], *, block: int = _BLOCK) -> Iterator[list[Any]]:
    """The items of a json file that holds a list of objects, in parts; only one part is in memory at a time.

    Args:
        path: the file.
        block: how many bytes are parsed at once. What cannot be cut there, such as objects that hold lists of objects,
            is parsed in one piece.

    Raises:
        ValueError: it is not json, or is not a list.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        pending = b""
        while not pending and (following := file.read(block)):
            pending = following.lstrip()
        if not pending.startswith(b"["):
            raise ValueError(f"the file holds not a list but a {type(_parse(pending + file.read())).__name__}")
        # what could not be cut grows by its own length, so that trying again and again takes no longer than twice
        while following := file.read(max(block, len(pending))):
            cut = _last_separator(pending)
            if cut is not None:
                try:
                    items = _parse(pending[:cut] + b"]")
                except ValueError:  # cut inside an object, or broken: the whole tells
                    cut = None
                else:
                    yield items
                    pending = b"[" + pending[cut + 1 :]
            pending += following
    yield _parse(pending)


def _last_separator(text: bytes) -> int | None:
    """Where the last comma between an object's end and an object's start is."""
    start = len(text)
    while (start := text.rfind(b"{", 0, start)) > 0:
        before = text[max(0, start - _WINDOW) : start].rstrip()
        if before.endswith(b",") and before[:-1].rstrip().endswith(b"}"):
            return text.rfind(b",", 0, start)
    return None


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)

"""What differs between two configs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

ABSENT = "(not there)"


def differing(one: DictConfig, other: DictConfig) -> list[str]:
    """One line for each key whose value differs: ``key: before -> after``, interpolations unresolved."""
    before = dict(_leaves(OmegaConf.to_container(one, resolve=False), ""))
    after = dict(_leaves(OmegaConf.to_container(other, resolve=False), ""))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        f"{key}: {before.get(key, ABSENT)} -> {after.get(key, ABSENT)}"
        for key in keys
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    ]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for name, inner in node.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(inner, (dict, list)) for inner in node):
        for index, inner in enumerate(node):
            yield from _leaves(inner, f"{key}.{index}")
    else:
        yield key, node.__qualname__ if callable(node) and hasattr(node, "__qualname__") else repr(node)

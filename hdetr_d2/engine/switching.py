"""The name of a class in the place of a node: ``model.supervision=HybridLayer``, ``optimizer=SGD``.

Supervisions, matchers, losses and evaluators have registered names (`hdetr_d2.registry`); any class has its import
path. The arguments that the new class shares with the old one stay, the others go.
"""

from __future__ import annotations

import abc
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.utils.registry import _convert_target_to_string

from hdetr_d2 import registry
from hdetr_d2.errors import UserError

from .errors import ConfigError
from .hints import Hint, argument_names, classes, is_call, kinds, name_of, required_names, takes_any, target_of
from .typed import unknown_key_hint
from .values import NULLS, TRUTHS, read_value

FROM_DATASET = {"num_classes": "${dataset.num_classes}", "image_counts": "${dataset.image_counts}"}
"""Arguments that a class without a default for them takes from the dataset, as the configs write them."""

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?")


@dataclass(frozen=True)
class Switch:
    """A node is to call ``target`` instead of what it calls now.

    Args:
        key: the node's dotted name.
        target: the class or function.
        given: arguments named together with it.
    """

    key: str
    target: Callable[..., Any]
    given: Mapping[str, Any]

    def apply(self, cfg: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
        """The new node.

        Args:
            cfg: the whole config, plain and not resolved.
            tell: is called with a sentence about arguments that go.
        """
        old: Any = cfg
        for part in self.key.split("."):
            old = old[int(part)] if isinstance(old, list) else (old or {}).get(part)
        former = {key: value for key, value in old.items() if key != "_target_"} if isinstance(old, Mapping) else {}
        taken = argument_names(self.target)
        kept = {key: value for key, value in former.items() if key in taken or takes_any(self.target)}
        dropped = [key for key in former if key not in kept and key not in self.given]
        if dropped:
            tell(f"{self.key}={name_of(self.target)} has no {', '.join(dropped)}; dropped")
        from_dataset = {name: FROM_DATASET[name] for name in required_names(self.target) if name in FROM_DATASET}
        return {"_target_": _convert_target_to_string(self.target), **from_dataset, **kept, **self.given}


def switch_of(key: str, text: str, node: object, hint: Hint, *, explicit: bool = False) -> Switch | None:
    """What ``key=text`` asks for, if it names a class: as ``Name``, ``module.Name``, or ``{_target_: Name, ...}``.

    Args:
        key: of the node.
        node: what the key holds, plain; ``hint`` the annotation of its place.
        explicit: whether the text is given as the node's ``_target_``.

    Raises:
        ConfigError: the text is the name of nothing that could stand there.
    """
    text = text.strip()
    given: dict[str, Any] = {}
    if text.startswith("{") and "_target_" in text:
        value = read_value(text, None, None)
        text, given = str(value.pop("_target_", "")), value
        explicit = True
    follows = isinstance(node, str) and "${" in node
    holds_object = is_call(node) or ((node is None or follows) and classes(hint) and "str" not in kinds(hint))
    text = text.strip("'\"")
    if text.lower() in NULLS or not (explicit or holds_object):
        return None
    if not _NAME.fullmatch(text) or (not explicit and text.lower() in TRUTHS):
        return None
    old = target_of(node, key) if isinstance(node, Mapping) and is_call(node) else None
    return Switch(key, _find(text.removesuffix("()"), key, old, classes(hint)), given)


def _find(name: str, key: str, old: Callable[..., Any] | None, bases: list[type[Any]]) -> Callable[..., Any]:
    """What a name stands for in the place of ``old``, or of objects of one of ``bases``.

    Raises:
        ConfigError: nothing.
    """
    kind = next((kind for kind in map(registry.kind_of, (old, *bases)) if kind is not None), None)
    if kind is not None:
        try:
            return registry.find(kind, name)
        except UserError as error:
            raise ConfigError(str(error)) from error
    if "." in name:
        found = target_of({"_target_": name}, key)
        if isinstance(found, type) and bases and not issubclass(found, tuple(bases)):
            raise ConfigError(f"{name} is no {' or '.join(base.__name__ for base in bases)}, which {key} must be")
        return found
    for neighbour in (*bases, old):
        for sibling in _siblings(neighbour):
            if sibling.__name__ == name:
                return sibling
    known = sorted({sibling.__name__ for neighbour in (*bases, old) for sibling in _siblings(neighbour)})
    if old is not None:
        now = f"calls {name_of(old)}"
    else:
        now = f"is a {' or '.join(base.__name__ for base in bases)}" if bases else "calls nothing"
    hint = f"; {unknown_key_hint(name, known)}" if known else ""
    raise ConfigError(f'{key} {now}, and there is no "{name}" beside it; give the import path of a class{hint}')


def _siblings(cls: object) -> list[type[Any]]:
    """Classes like ``cls`` that its package offers: those with a base in common, besides ``object``."""
    if not isinstance(cls, type):
        return []
    common = {base for base in cls.__mro__ if base not in (object, abc.ABC) and base.__module__ not in _TOO_GENERAL}
    parts = cls.__module__.split(".")
    names = [".".join(parts[:depth]) for depth in range(len(parts), 1, -1)]
    packages = [sys.modules[name] for name in names if name in sys.modules]
    return [
        found
        for package in packages
        for name, found in vars(package).items()
        if isinstance(found, type) and not name.startswith("_") and common & set(found.__mro__)
        and not inspect.isabstract(found)
    ]  # fmt: skip


_TOO_GENERAL = ("torch.nn.modules.module", "typing", "builtins")

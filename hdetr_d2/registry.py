"""The kinds of object that a config and a command line may choose by name: ``model.supervision=HybridLayer``.

Meta-architectures and backbones are in Detectron2's own registries; these are for what it has none for. A class of
one's own is named by its import path, or by its name alone after ``SUPERVISION_REGISTRY.register()``.
"""

import importlib
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args

from detectron2.utils.registry import Registry

from hdetr_d2.errors import UserError

Kind = Literal["supervision", "matcher", "loss", "evaluator"]

MATCHER_REGISTRY = Registry("MATCHER")
MATCHER_REGISTRY.__doc__ = "Matchers: logits, boxes and targets of one image -> (query indices, target indices)."

SUPERVISION_REGISTRY = Registry("SUPERVISION")
SUPERVISION_REGISTRY.__doc__ = "Supervisions: which query groups training adds, and each layer's matcher and weight."

LOSS_REGISTRY = Registry("LOSS")
LOSS_REGISTRY.__doc__ = "Class losses: logits and matched queries -> the loss of each layer."

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = "Evaluators: `detectron2.evaluation.DatasetEvaluator` classes by name."


@dataclass(frozen=True)
class _Entry:
    """A registry, the package whose import fills it, and the module and name of what its classes derive from."""

    registry: Registry
    package: str
    base: tuple[str, str]


_ENTRIES: Final[dict[Kind, _Entry]] = {
    "supervision": _Entry(SUPERVISION_REGISTRY, "hdetr_d2.supervision", ("hdetr_d2.supervision", "Supervision")),
    "matcher": _Entry(MATCHER_REGISTRY, "hdetr_d2.matching", ("hdetr_d2.matching", "Matcher")),
    "loss": _Entry(LOSS_REGISTRY, "hdetr_d2.losses", ("hdetr_d2.losses", "ClassificationLoss")),
    "evaluator": _Entry(EVALUATOR_REGISTRY, "hdetr_d2.evaluation", ("detectron2.evaluation", "DatasetEvaluator")),
}
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class UnknownNameError(UserError, LookupError):
    """No class of that kind has that name."""


def names(kind: Kind) -> list[str]:
    """Every name of a kind, sorted; imports the package that holds them."""
    entry = _ENTRIES[kind]
    importlib.import_module(entry.package)
    return sorted(name for name, _ in entry.registry)


def find(kind: Kind, name: str) -> type[Any]:
    """The class that a name stands for.

    Args:
        kind: what is looked for.
        name: a registered name, such as ``"HybridLayer"``, or the import path of a class of that kind.

    Raises:
        UnknownNameError: there is none, or it is of another kind; the message says what there is.
    """
    known = names(kind)
    if name in known:
        return _checked(kind, name, _ENTRIES[kind].registry.get(name))
    if "." in name:
        return _checked(kind, name, _imported(kind, name))
    message = f'there is no {kind} "{name}"'
    close = _closest(name, known)
    elsewhere = [other for other in KINDS if other != kind and name in names(other)]
    if close:
        message += f'; did you mean "{close}"?'
    elif elsewhere:
        message += f", which is the name of a {elsewhere[0]}"
    raise UnknownNameError(f"{message} There are {', '.join(known)}; a class of your own is named by its import path")


def kind_of(cls: object) -> Kind | None:
    """Which kind a class is of, registered or not, abstract or not; None for any other object. Imports nothing."""
    if not isinstance(cls, type):
        return None
    for kind, entry in _ENTRIES.items():
        module, name = entry.base
        # A class can derive only from what is imported.
        base = getattr(sys.modules.get(module), name, None)
        if isinstance(base, type) and issubclass(cls, base):
            return kind
    return None


def _closest(name: str, known: list[str]) -> str | None:
    """The known name that looks most like it, whatever the case and underscores."""
    plain = {each.lower(): each for each in known}
    found = get_close_matches(name.lower().replace("_", "").replace("-", ""), plain, n=1)
    return plain[found[0]] if found else None


def _imported(kind: Kind, path: str) -> object:
    """What an import path leads to."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(f'{kind} "{path}" cannot be imported: {error}') from error


def _checked(kind: Kind, name: str, found: object) -> type[Any]:
    """Refuse what is not a class of the kind."""
    if isinstance(found, type) and kind_of(found) == kind:
        return found
    raise UnknownNameError(f'"{name}" is no {kind}: it does not derive from {".".join(_ENTRIES[kind].base)}')

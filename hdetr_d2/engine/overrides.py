"""``key=value`` from the command line onto a config, refusing what would have no effect.

Detectron2 applies an override to any key, so that a typo creates a new key and the run goes on with the old value. Here
a key must exist in the config, or be an argument of what its node calls, and the text is read as what the key holds
(`values.read_value`). The name of a class in the place of a node puts that class there (`switching`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ConfigError
from .hints import Hint, argument_names, is_call, key_hint, name_of, takes_any, target_of
from .schedule import ScheduleSettings
from .settings import DatasetSettings, TrainSettings
from .switching import Switch, switch_of
from .typed import shown, unknown_key_hint
from .values import read_value

TYPED_ROOTS: Mapping[str, Hint] = {
    "train": TrainSettings,
    "schedule": ScheduleSettings,
    "dataset": DatasetSettings,
}
"""Root nodes that are no calls, and the classes that say what they hold."""

FILE_KEYS = frozenset(
    f"dataset.{split}.{key}" for split in ("train", "val") for key in ("json", "images", "name", "path")
)
"""A split's own files, in whose place those of a generated dataset would be drawn."""

SPLIT_KEYS = ("dataset.train", "dataset.val")
"""Which a path may be given for."""

_told: set[str] = set()


@dataclass(frozen=True)
class Override:
    """An argument of the command line, taken apart but not read."""

    text: str
    key: str
    value: str
    adds: bool

    @property
    def parts(self) -> list[str]:
        """The key, from the root."""
        return self.key.split(".")

    def refuse(self, reason: object) -> NoReturn:
        """Raise the error that names this override."""
        raise ConfigError(f'override "{self.text}": {reason}')


def parse_override(text: str) -> Override:
    """Take "key=value" or "+key=value" apart.

    Raises:
        ConfigError: it is something else.
    """
    if text.startswith("~"):
        key = text[1:].partition("=")[0]
        raise ConfigError(f'override "{text}": keys cannot be deleted; set {key}=null')
    left, equals, value = text.partition("=")
    key = left.strip().removeprefix("+").removeprefix("+").strip()
    if not equals or not key:
        raise ConfigError(f'override "{text}" is not of the form key=value')
    if "" in key.split(".") or re.search(r"[\s\[\]{}()'\"$]", key):
        raise ConfigError(f'override "{text}": "{key}" is no key; keys are names joined by single dots')
    return Override(text=text, key=key, value=value, adds=left.strip().startswith("+"))


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Change ``cfg`` in place; where one override is refused, it stays as it was.

    Args:
        overrides: "a.b=value"; "+a.b=value" adds a key that does not exist yet, or an item behind the last of a list;
            "~a.b" is refused. Where a key is given twice, the last value holds. Classes are chosen first, so that
            their arguments may stand before them.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: not the grammar, an unknown key, a key below an interpolation, or a value that the key cannot
            hold; the message names the override and near misses.
    """
    for text in overrides:
        if re.search("[\ud800-\udfff]", text):  # bytes of the command line that the locale has no letters for
            raise ConfigError(f"override {text!a}: not of the locale's letters; set LC_ALL=C.UTF-8 or PYTHONUTF8=1")
    changed = DictConfig(OmegaConf.to_container(cfg, resolve=False), flags={"allow_objects": True})
    parsed = _datasets_by_path([parse_override(text) for text in overrides])
    switches = [(override, switch) for override in parsed if (switch := _switch(changed, override)) is not None]
    for override, switch in sorted(switches, key=lambda pair: len(pair[1].key.split("."))):
        node = switch.apply(_plain(changed), _tell)
        _put(changed, switch.key, node, override, merge=False)
        dataset = _plain(changed).get("dataset")
        if "${dataset.image_counts}" in node.values() and "image_counts" not in (dataset or {}):
            OmegaConf.update(changed, "dataset.image_counts", None, force_add=True)  # read from the training json
    chosen = {override.text for override, _ in switches}
    last: dict[str, str] = {}
    for override in parsed:
        if override.key in last and last[override.key] != override.value:
            _tell(f"{override.key} is given twice; {override.text} holds")
        last[override.key] = override.value
        if override.text not in chosen:
            _apply(changed, override)
    _prefer_given_files(changed, parsed)
    for key, node in _plain(changed).items():
        cfg[key] = node
    return cfg


def _datasets_by_path(overrides: Sequence[Override]) -> list[Override]:
    """``dataset.train=PATH`` as the keys that it stands for: the path, in place of the files that the config names.

    A training set brings its validation split along, unless the command line names another.
    """
    given = {override.key for override in overrides}
    result: list[Override] = []
    for override in overrides:
        split = override.key.removeprefix("dataset.")
        if override.key not in SPLIT_KEYS or not _is_path(override.value):
            result.append(override)
            continue
        result.append(replace(override, key=f"{override.key}.path"))
        emptied = {f"{override.key}.{key}" for key in ("json", "images", "name")}
        if split == "train" and not any(key.split(".")[:2] == ["dataset", "val"] for key in given):
            emptied |= {f"dataset.val.{key}" for key in ("json", "images", "name", "path")}
        result += [replace(override, key=key, value="null") for key in sorted(emptied - given)]
    return result


def _is_path(value: str) -> bool:
    return value.strip() not in ("", "null", "~") and not value.lstrip().startswith("{") and "${" not in value


def _plain(cfg: DictConfig) -> dict[Any, Any]:
    """The config as dicts and lists, interpolations unresolved."""
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict)
    return container


def _switch(cfg: DictConfig, override: Override) -> Switch | None:
    """The class that an override names in the place of a node."""
    key = override.key.removesuffix("._target_")
    node, hint = _look_up(_plain(cfg), replace(override, key=key))
    try:
        return switch_of(key, override.value, node, hint, explicit=key != override.key)
    except ConfigError as error:
        override.refuse(error)


def _apply(cfg: DictConfig, override: Override) -> None:
    plain = _plain(cfg)
    node, hint = _look_up(plain, override, complete=True)
    try:
        value = read_value(override.value, hint, node)
    except ConfigError as error:
        override.refuse(error)
    follows = isinstance(value, str) and "${" in value
    if isinstance(node, Mapping) and not (isinstance(value, Mapping) or value is None or follows):
        what = f"calls {name_of(target_of(node, override.key))}" if is_call(node) else "is a mapping"
        override.refuse(f"{override.key} {what} and cannot be {shown(value)}; set one of its keys")
    if isinstance(node, list) and isinstance(value, str) and not follows:
        override.refuse(f"{override.key} is a list, written [a,b], and cannot be {shown(value)}")
    if isinstance(node, Mapping) and isinstance(value, Mapping) and node:
        if not value:
            override.refuse("an empty mapping changes nothing, because mappings are merged; set single keys, or null")
        for inner in value:
            _look_up(plain, replace(override, key=f"{override.key}.{inner}"), complete=True)
    _put(cfg, override.key, value, override, merge=True)


def _put(cfg: DictConfig, key: str, value: Any, override: Override, *, merge: bool) -> None:
    """Set a key that is known to lead somewhere."""
    if value == "???":
        override.refuse('"???" marks a value that is missing')
    parent, _, last = key.rpartition(".")
    try:
        above = OmegaConf.select(cfg, parent) if parent else cfg
        if OmegaConf.is_list(above) and last == str(len(above)):
            above.append(value)
        else:
            OmegaConf.update(cfg, key, value, merge=merge, force_add=True)
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        override.refuse(f"cannot be applied: {error}")


def _look_up(cfg: dict[Any, Any], override: Override, *, complete: bool = False) -> tuple[Any, Hint]:
    """What the key holds in the plain (not resolved) ``cfg`` and the annotation of its place.

    Args:
        complete: refuse a key that leads nowhere, unless the override adds keys; otherwise it is (None, None).
    """
    node: Any = cfg
    hint: Hint = None
    for depth, part in enumerate(override.parts):
        reason = _no_way(node, part, override.parts[:depth], is_last=depth + 1 == len(override.parts), hint=hint)
        if reason and complete and not (override.adds and isinstance(node, (Mapping, list))):
            override.refuse(reason + (f" (+{override.key}=... adds a new key)" if isinstance(node, Mapping) else ""))
        if reason and complete and isinstance(node, list) and part != str(len(node)):
            override.refuse(reason)
        if reason:
            return None, None
        following = TYPED_ROOTS.get(part) if depth == 0 else key_hint(node, hint, part)
        node = node[int(part)] if isinstance(node, list) else node.get(part)
        hint = following
    return node, hint


def _no_way(node: Any, part: str, above: Sequence[str], *, is_last: bool, hint: Hint) -> str:
    """Why ``part`` leads nowhere in ``node``; "" if it does."""
    where = ".".join(above)
    if node is None:
        return f"{where} is null; set it as a whole, {where}={{{part}: ...}}"
    if isinstance(node, str) and "${" in node:
        return f"{where} follows {node}; change that, or set {where} as a whole"
    if isinstance(node, list):
        if part.isascii() and part.isdigit() and int(part) < len(node):
            return ""
        return f'{where} is a list of {len(node)} and has no position "{part}"'
    if not isinstance(node, Mapping):
        return f'{where} is the value {node!r} and has no key "{part}"'
    if part in node:
        return ""
    target = target_of(node, where) if is_call(node) else None
    if is_last and target is not None and (part in argument_names(target) or takes_any(target)):
        return ""
    if is_last and target is None and key_hint(node, hint, part) is not None and not _is_free(hint):
        return ""
    known = {str(key) for key in node} | set(argument_names(target) if target is not None else ())
    return f"there is no key {'.'.join([*above, part])}; {unknown_key_hint(part, known - {'_target_'})}"


def _is_free(hint: Hint) -> bool:
    """Whether the annotation is of a mapping with any keys."""
    return not isinstance(hint, type)


def _prefer_given_files(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Files of the user's own are used, and not those of the dataset that the config would draw.

    Raises:
        ConfigError: both are asked for.
    """
    dataset = _plain(cfg).get("dataset")
    if not isinstance(dataset, Mapping) or dataset.get("generate") is None:
        return
    splits = [(split, dataset[split]) for split in ("train", "val") if isinstance(dataset.get(split), Mapping)]
    held = {f"dataset.{split}.{key}" for split, files in splits for key in files if files[key] is not None}
    given = {override.key: override for override in overrides if override.key in FILE_KEYS}
    given = {key: override for key, override in given.items() if key in held}
    drawn = [override for override in overrides if override.parts[:2] == ["dataset", "generate"]]
    if not given:
        return
    if drawn:
        drawn[0].refuse(f"the dataset is not generated where {', '.join(given)} is given; leave one of them out")
    OmegaConf.update(cfg, "dataset.generate", None)
    for key in FILE_KEYS & held - set(given):  # of a saved config: where the generated ones lie
        OmegaConf.update(cfg, key, None)
    _tell(f"dataset.generate=null: the dataset is not generated, because {', '.join(sorted(given))} is given")


def _tell(text: str) -> None:
    """Say what an override means besides, once in a process and by one process only; there is no log yet."""
    if text not in _told and comm.get_rank() == 0:
        _told.add(text)
        sys.stderr.write(f"note: {text}\n")

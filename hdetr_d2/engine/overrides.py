"""``key=value`` from the command line onto a config, refusing what would have no effect.

Detectron2 applies an override to any key, so that a typo creates a new key and the run goes on with the old value. Here
a key must exist in the config, or be a parameter of the callable that its node describes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ConfigError
from .settings import unknown_key_hint


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Change ``cfg`` in place.

    Args:
        overrides: "a.b=value" in Hydra's grammar; "+a.b=value" adds a key that does not exist yet; "~a.b" is refused.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: not the grammar, an unknown key, or a key below an interpolation; the message names near misses.
    """
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if override.is_delete():
                raise ConfigError(f'override "{text}": keys cannot be deleted; set {override.key_or_group}=null')
            if override.is_sweep_override():
                raise ConfigError(f'override "{text}": a list is written [a,b]')
            value = override.value()
        except HydraException as error:
            raise ConfigError(f'override "{text}" is not of the form key=value: {error}') from error
        key = override.key_or_group
        if not (override.is_add() or override.is_force_add()):
            _check_known(OmegaConf.to_container(cfg, resolve=False), key, value, text)
        try:
            OmegaConf.update(cfg, key, value, merge=True, force_add=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f'override "{text}" cannot be applied: {error}') from error
    return cfg


def _check_known(cfg: Any, key: str, value: Any, text: str) -> None:
    """Refuse ``key`` unless it leads somewhere in the plain (not resolved) ``cfg``; for a mapping, each of its keys."""
    node = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth])
        if node is None:
            raise ConfigError(f'override "{text}": {where} is null; set it as a whole, {where}={{{part}: ...}}')
        if isinstance(node, str) and "${" in node:
            raise ConfigError(f'override "{text}": {where} follows {node}; change that, or set {where} as a whole')
        if isinstance(node, list):
            if not (part.isdigit() and int(part) < len(node)):
                raise ConfigError(f'override "{text}": {where} is a list of {len(node)} and has no position "{part}"')
            node = node[int(part)]
        elif isinstance(node, Mapping):
            if part not in node:
                if depth + 1 == len(parts) and _takes(node, part):
                    return
                raise ConfigError(
                    f'override "{text}": there is no key {".".join(parts[: depth + 1])}; '
                    f"{unknown_key_hint(part, _names(node))} (+{key}=... adds a new key)"
                )
            node = node[part]
        else:
            raise ConfigError(f'override "{text}": {where} is the value {node!r} and has no key "{part}"')
    if isinstance(value, Mapping) and isinstance(node, Mapping) and node:
        for inner, inner_value in value.items():
            _check_known(cfg, f"{key}.{inner}", inner_value, text)


def _parameters(node: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of what a LazyCall node calls; none where the node is no LazyCall or has no signature."""
    target = node.get("_target_")
    if isinstance(target, str):
        target = locate(target)
    try:
        return inspect.signature(target).parameters if callable(target) else {}
    except (TypeError, ValueError):
        return {}


def _takes(node: Mapping[str, Any], name: str) -> bool:
    """Whether what the node calls has a parameter ``name``, or takes any."""
    parameters = _parameters(node)
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _names(node: Mapping[str, Any]) -> set[str]:
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    callable_names = {name for name, parameter in _parameters(node).items() if parameter.kind not in variable}
    return {str(key) for key in node} | callable_names

"""The config in a file of weights, which may come from anywhere: reading it runs no code, building it only ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hdetr_d2.errors import UserError

_ROOMS = re.compile(
    r"hdetr_d2\.(modeling|supervision|matching|losses|layers|data|evaluation|engine\.optim)(\.|$)"
    r"|detectron2\.(modeling|layers|data\.(transforms|samplers)|evaluation)(\.|$)"
    r"|torch\.(nn|optim)(\.|$)|fvcore\.(nn|common\.param_scheduler)(\.|$)"
)
"""Modules whose classes and functions build models, losses, loaders and optimisers, and do nothing else."""
_EXPORTED = re.compile(r"hdetr_d2\.engine\.\w+$")
"""What configs name by the package that exports it; the module that defines it decides."""


class UnsafeConfigError(UserError, ValueError):
    """A config in a file that cannot be read as plain values, or names code of another project."""


def read_config(text: str) -> DictConfig:
    """A config of plain values. Detectron2's own reading of YAML would run code that the text names.

    Raises:
        UnsafeConfigError: it is something else.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise UnsafeConfigError(f"its config holds more than plain values ({reason})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise UnsafeConfigError("its config has no model")
    return DictConfig(content, flags={"allow_objects": True})


def require_ours(cfg: DictConfig, *keys: str) -> None:
    """Refuse calls of anything but what builds models.

    Args:
        cfg: from `read_config`.
        keys: dotted, of the parts that will be built; none is all of it.

    Raises:
        UnsafeConfigError: a part names other code, or nothing that is here.
    """
    for key in keys or ("",):
        node = OmegaConf.select(cfg, key) if key else cfg
        if not OmegaConf.is_config(node):
            continue
        try:
            content = OmegaConf.to_container(node, resolve=True)
        except OmegaConfBaseException as error:
            raise UnsafeConfigError(f"its config cannot be resolved: {str(error).splitlines()[0]}") from error
        for where, target in _targets(content, key):
            if not isinstance(target, str) or not _is_ours(target):
                raise UnsafeConfigError(f"its config names {target} at {where}, code that is not of this project")


def _is_ours(name: str) -> bool:
    from detectron2.utils.registry import locate

    if not (_ROOMS.match(name) or _EXPORTED.match(name)):
        return False
    try:
        found: Any = locate(name)
    except Exception:  # importing may raise anything
        return False
    # modules import others: hdetr_d2.data.loader.logging.os.system begins with ours and is not
    return callable(found) and bool(_ROOMS.match(str(getattr(found, "__module__", ""))))


def _targets(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield f"{where}._target_".lstrip("."), node["_target_"]
        for name, inner in node.items():
            yield from _targets(inner, f"{where}.{name}" if where else str(name))
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _targets(inner, f"{where}.{index}")

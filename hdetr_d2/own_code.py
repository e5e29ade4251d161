"""Code of the user's own in and beside a config file, so that a config finds it, and again once it is saved elsewhere.

Modules beside a config file can be imported by it: its folder is searched after all others. A saved config lists such
folders under `IMPORT_PATHS`. A class that a config file itself defines is saved as ``/folder/config.py:MyClass``.
"""

from __future__ import annotations

import builtins
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from hdetr_d2.errors import UserError

IMPORT_PATHS = "import_paths"
"""The root key of a saved config under which the folders of the modules that it needs stand."""

_IN_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_PACKAGED = Path(__file__).parent / "model_zoo" / "configs"
_folders: list[str] = []


class OwnCodeError(UserError, ValueError):
    """Code of the user's own that a config names cannot be found, or could not be found again."""


def search_beside(config_file: str | os.PathLike[str]) -> None:
    """Let the modules in the folder of a config file be imported; those of the same name elsewhere come first."""
    folder = Path(config_file).absolute().parent
    if not folder.resolve().is_relative_to(_PACKAGED.resolve()):
        _search(str(folder))


def _search(folder: str) -> None:
    if folder not in _folders:
        _folders.append(folder)
    if folder not in sys.path:
        sys.path.append(folder)


def after_loading(cfg: DictConfig, path: str, load_names: Callable[[str, tuple[str, ...]], tuple[Any, ...]]) -> None:
    """Make the code that a saved config needs available, and put the classes of config files back, in place.

    Args:
        path: of the saved config, for messages.
        load_names: runs a config file and returns what it calls by these names.

    Raises:
        OwnCodeError: a file or a class of it is not there any more.
    """
    for folder in cfg.get(IMPORT_PATHS) or ():
        _search(str(folder))
    places: dict[str, list[tuple[DictConfig, str]]] = {}
    for key, node in _calls(cfg, ""):
        found = _IN_FILE.fullmatch(node._target_) if isinstance(node._target_, str) else None
        if found is not None:
            if not os.path.isfile(found["file"]):
                raise OwnCodeError(
                    f"{path}: {key} is of {found['file']}, which is not there; put it back, or edit the key"
                )
            places.setdefault(found["file"], []).append((node, found["name"]))
    for file, nodes in places.items():
        first_names = tuple(dict.fromkeys(name.partition(".")[0] for _, name in nodes))
        try:
            objects = dict(zip(first_names, load_names(file, first_names)))
            for node, name in nodes:
                target = objects[name.partition(".")[0]]
                for part in name.split(".")[1:]:
                    target = getattr(target, part)
                node._target_ = target
        except (KeyError, AttributeError) as error:
            raise OwnCodeError(f"{path}: {file} does not define {error} any more") from error


def for_saving(cfg: DictConfig) -> DictConfig:
    """A copy whose code of the user's own is found again from any folder.

    Raises:
        OwnCodeError: a function or class of a config file that no name leads to.
    """
    copy = DictConfig(OmegaConf.to_container(cfg, resolve=False), flags={"allow_objects": True})
    for key, node in _calls(copy, ""):
        if _is_of_config_file(node._target_):
            node._target_ = _name_in_file(node._target_, key)
    for key, value in _values(copy, ""):
        if _is_of_config_file(value):
            raise OwnCodeError(
                f"config key '{key}' is {value.__qualname__} of the config file itself: define it in a module beside "
                "the file and import it from there"
            )
    folders = sorted({folder for _, value in _values(copy, "") if (folder := _folder_of(value))})
    if folders:
        copy[IMPORT_PATHS] = sorted({*(copy.get(IMPORT_PATHS) or ()), *folders})
    return copy


def _is_of_config_file(value: object) -> bool:
    """Whether a config file defines it; Detectron2 runs these under no module's name."""
    module = getattr(value, "__module__", None)
    if isinstance(value, FunctionType) and module is None:
        return True
    if not callable(value) or not isinstance(module, str) or not hasattr(value, "__qualname__"):
        return False
    unnamed = module == "builtins" and getattr(builtins, value.__qualname__.partition(".")[0], None) is None
    return unnamed or module.startswith("detectron2._cfg_loader")


def _name_in_file(value: Any, key: str) -> str:
    functions = (
        [value] if isinstance(value, FunctionType) else [f for f in vars(value).values() if isinstance(f, FunctionType)]
    )
    files = [function.__code__.co_filename for function in functions if function.__code__.co_filename.endswith(".py")]
    if "<" in value.__qualname__ or not files:
        raise OwnCodeError(
            f"config key '{key}' is {value.__qualname__} of the config file itself, which cannot be named in a saved "
            "config: define it in a module beside the file and import it from there"
        )
    return f"{os.path.abspath(files[0])}:{value.__qualname__}"


def _folder_of(value: object) -> str | None:
    """The folder beside a config file in which the module of a callable, or of a target's name, is."""
    name = value if isinstance(value, str) else getattr(value, "__module__", None) if callable(value) else None
    module = sys.modules.get(name.partition(".")[0]) if isinstance(name, str) else None
    file = getattr(module, "__file__", None)
    if not file:
        return None
    parents = [str(parent) for parent in Path(file).absolute().parents]
    return next((folder for folder in _folders if folder in parents[:2]), None)


def _calls(node: Any, where: str) -> Iterator[tuple[str, DictConfig]]:
    """The nodes that describe calls, and the dotted names of their targets."""
    if isinstance(node, DictConfig) and "_target_" in node:
        yield f"{where}._target_" if where else "_target_", node
    for name, value in _children(node):
        yield from _calls(value, f"{where}.{name}" if where else str(name))


def _values(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is no config itself."""
    if not isinstance(node, (DictConfig, ListConfig)):
        yield where, node
    for name, value in _children(node):
        yield from _values(value, f"{where}.{name}" if where else str(name))


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, DictConfig):
        names: list[Any] = list(node) if not node._is_none() else []
    else:
        names = list(range(len(node))) if isinstance(node, ListConfig) else []
    for name in names:
        if not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
            yield name, node[name]

"""The one place that knows which Detectron2 is installed, and that works around what is wrong with all of them.

Supported are upstream main and v0.6, each with or without its compiled extension. Both call themselves 0.6, so only
what they contain tells them apart. What is written here runs the same way on both unless a comment says otherwise; the
rest of the package calls Detectron2 directly and keeps to what both have.
"""

import builtins
import importlib.machinery
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import detectron2
import torch.distributed as dist
from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, ListConfig, OmegaConf

from hdetr_d2 import own_code
from hdetr_d2.config_text import read_yaml, to_yaml


@dataclass(frozen=True)
class Detectron2Info:
    """Which Detectron2 this is.

    Args:
        version: what it calls itself.
        after_v06: it has what upstream added after v0.6.
        compiled: its extension (rotated boxes, its own deformable convolution) can be used.
    """

    version: str
    after_v06: bool
    compiled: bool

    def __str__(self) -> str:
        release = f"{self.version} ({'upstream main' if self.after_v06 else 'release'})"
        operators = "compiled" if self.compiled else "without its own operators, none of which is needed here"
        return f"Detectron2 {release}, {operators}"


def detectron2_info() -> Detectron2Info:
    """Describe the installed Detectron2, without importing its extension."""
    extension = importlib.util.find_spec("detectron2._C")
    origin = (extension.origin or "") if extension else ""
    return Detectron2Info(
        version=detectron2.__version__,
        after_v06=hasattr(comm, "create_local_process_group"),
        compiled=origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)),
    )


def load_config(path: str | os.PathLike[str]) -> DictConfig:
    """Load a LazyConfig file (.py or .yaml), whose root keys are the config objects that the file defines.

    ``LazyConfig.load`` replaces ``builtins.__import__`` while it runs a config and does not put it back when the config
    raises: every later import in the process then goes through the config loader. Here it is put back.

    Modules beside the file are found (`own_code`). A YAML file is read without running what it names (`config_text`).

    Raises:
        Whatever the config raises; OSError if there is no such file; ValueError for another file name extension, and
        for a file that holds no mapping.
    """
    path = os.fspath(path)
    if not path.endswith((".yaml", ".yml")):
        own_code.search_beside(path)
        return _lazy_load(path)
    with open(path, "rb") as file:
        content = read_yaml(file.read(), path)
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping of settings, and so is no config")
    cfg = OmegaConf.create(content, flags={"allow_objects": True})
    own_code.after_loading(cfg, path, _lazy_load)
    return cfg


def _lazy_load(path: str, keys: tuple[str, ...] | None = None) -> Any:
    original_import = builtins.__import__
    try:
        return LazyConfig.load(path, keys)
    finally:
        builtins.__import__ = original_import


def save_config(cfg: DictConfig, path: str | os.PathLike[str]) -> None:
    """Write a config as YAML, interpolations unresolved, so that :func:`load_config` reads the same config again.

    ``LazyConfig.save`` only logs that it failed, and writes what cannot be loaded, or loaded but not instantiated. Here
    the file is complete and loadable, or it is not written at all.

    Args:
        cfg: the config.
        path: the file to write, with the extension .yaml or .yml; replaced if it exists.

    Raises:
        ValueError: part of the config has no name to be loaded by; the message says which.
    """
    path = os.fspath(path)
    if not path.endswith((".yaml", ".yml")):
        raise ValueError(f"a config is saved as .yaml, not as '{path}'")
    for key, value in _leaves(cfg, ""):
        name = getattr(value, "__qualname__", "") if callable(value) else ""
        if "<lambda>" in name or "<locals>" in name:
            raise ValueError(f"config key '{key}' is {value!r}, which no file can name: use a function of a module")
    content = _names_for_targets(OmegaConf.to_container(own_code.for_saving(cfg), resolve=False))
    stem, extension = os.path.splitext(path)
    temporary = f"{stem}.tmp-{os.getpid()}{extension}"
    try:
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(to_yaml(content))
            load_config(temporary)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"this config cannot be loaded again once it is saved: {error}") from error
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def config_text(cfg: DictConfig) -> str:
    """What `save_config` writes, as text.

    Raises:
        ValueError: as `save_config`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        save_config(cfg, path)
        with open(path, encoding="utf-8") as file:
            return file.read()


def _names_for_targets(node: Any) -> Any:
    """The same with what nodes call by its name, as ``LazyConfig.save`` writes it."""
    if isinstance(node, dict):
        node = {key: _names_for_targets(value) for key, value in node.items()}
        target = node.get("_target_")
        if callable(target) and hasattr(target, "__module__") and hasattr(target, "__qualname__"):
            node["_target_"] = _convert_target_to_string(target)
    elif isinstance(node, list):
        node = [_names_for_targets(value) for value in node]
    return node


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a config that is not a config itself; interpolations are left out."""
    if isinstance(node, DictConfig):
        keys = list(node)
    elif isinstance(node, ListConfig):
        keys = list(range(len(node)))
    else:
        yield key, node
        return
    for name in keys:
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        yield from _leaves(node[name], f"{key}.{name}" if key else str(name))


def record_metrics(metrics: Mapping[str, float]) -> None:
    """Put scalars into the running trainer's EventStorage; nothing where no trainer runs.

    v0.6 cannot be asked whether there is a storage, only for it.
    """
    try:
        storage = get_event_storage()
    except AssertionError:
        return
    storage.put_scalars(**metrics)


def create_local_process_group(processes_per_machine: int) -> None:
    """Make ``comm.get_local_rank()`` and ``comm.get_local_size()`` work; every process calls this after it has joined.

    Detectron2's ``launch`` does this; v0.6 cannot do it for processes that something else started, such as torchrun,
    and its ``launch`` refuses to run without a GPU. Upstream main's function for it works once in a process's life.

    Args:
        processes_per_machine: the same on all machines.

    Raises:
        ValueError: the number of all processes is no multiple of ``processes_per_machine``.
    """
    world_size = comm.get_world_size()
    if world_size % processes_per_machine != 0:
        raise ValueError(f"{world_size} processes cannot be {processes_per_machine} on each machine")
    machine = comm.get_rank() // processes_per_machine
    for other in range(world_size // processes_per_machine):  # every process takes part in creating every group
        first = other * processes_per_machine
        group = dist.new_group(list(range(first, first + processes_per_machine)))
        if other == machine:
            comm._LOCAL_PROCESS_GROUP = group


def destroy_process_group() -> None:
    """End the process group, and forget the groups that Detectron2 keeps, so that another one can be started."""
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()

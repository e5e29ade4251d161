"""Configs as YAML text. Reading one calls nothing that the text names, which Detectron2's own reading does.

What a config holds beside plain values, functions and classes by name, paths, devices and members of enumerations, is
written with Python's tags and read again from a short list of them.
"""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
import yaml

from hdetr_d2.errors import UserError

MOST_VALUES = 1_000_000
"""That the aliases of a file may expand to; the largest recipe has 2,000."""

_PREFIX = "tag:yaml.org,2002:python/"
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+")
"""1e-4 and its like, which YAML 1.1 takes for text."""


class ConfigTextError(UserError, ValueError):
    """A file of YAML that is no config, or would run code while it is read; the message names the line."""


def _numpy_scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    return np.frombuffer(content, dtype)[0].item()


_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "builtins.complex": complex,
    "builtins.range": range,
    "builtins.slice": slice,
    "numpy.dtype": lambda name, *_: np.dtype(name),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    **{
        f"{module}.{name}": getattr(pathlib, name)
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    },
}
"""What may be called while a config is read, by the names that its tags have."""


class _Loader(yaml.SafeLoader):
    """Plain values, and what `_BUILDERS` lists."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, which takes the last of two equal keys without a word."""
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                first = lines.get((key.tag, key.value))
                if first is not None:
                    raise _Refused(f'the key "{key.value}" is there already, in line {first}; keep one of them', key)
                lines[key.tag, key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.Dumper):
    """What `_Loader` reads."""


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, problem: str, node: yaml.Node) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


def _named(name: str, node: yaml.Node) -> Any:
    """What ``module.Class.function`` names."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
            for part in parts[count:]:
                found = getattr(found, part)
            return found
        except (ImportError, AttributeError, ValueError):
            continue
    raise _Refused(f"{name} is not there; install or restore the module that it is of", node)


def _name(loader: _Loader, name: str, node: yaml.Node) -> Any:
    return _named(name, node)


def _call(loader: _Loader, name: str, node: yaml.Node) -> Any:
    build = _BUILDERS.get(name)
    if build is None and isinstance(node, yaml.SequenceNode) and len(node.value) == 1:
        found = _named(name, node)
        build = found if isinstance(found, type) and issubclass(found, Enum) else None
    if build is None:
        raise _refused_tag(node)
    try:
        if isinstance(node, yaml.MappingNode):
            return build(*loader.construct_mapping(node, deep=True)["args"])
        return build(*loader.construct_sequence(node, deep=True))
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise _Refused(f"{name} cannot be made of what is given ({error})", node) from error


def _refused_tag(node: yaml.Node) -> _Refused:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    return _Refused(f"the tag {tag} would run code; use plain values, or a node with _target_", node)


def _refuse(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    raise _refused_tag(node)


for _tag, _construct in yaml.FullLoader.yaml_constructors.items():
    if _tag is not None and _tag.startswith(_PREFIX):  # tuples, complex numbers, and the plain types
        _Loader.add_constructor(_tag, _construct)
_Loader.add_multi_constructor(f"{_PREFIX}name:", _name)
_Loader.add_multi_constructor(f"{_PREFIX}object/apply:", _call)
_Loader.add_multi_constructor(_PREFIX, _refuse)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_multi_representer(np.generic, lambda dumper, value: dumper.represent_data(value.item()))


def read_yaml(content: bytes | str, path: str) -> Any:
    """The values of a YAML file.

    Args:
        content: UTF-8, or UTF-16 with its mark.
        path: for messages.

    Raises:
        ConfigTextError: it is no YAML, has a key twice, or a tag that is not of those that `to_yaml` writes.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_VALUES:
            raise ConfigTextError(f"{path}: its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ConfigTextError(f"{path}: its values are nested too deeply, or contain themselves") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        if isinstance(error, UserError):
            raise
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error)
        raise ConfigTextError(f"{path}{line}: {' '.join(str(reason).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases expanded."""
    if id(node) not in known:
        inner: Sequence[Any] = node.value if isinstance(node.value, list) else ()
        nodes = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in nodes)
    return known[id(node)]


def to_yaml(content: Any) -> str:
    """Text from which `read_yaml` makes the same values, with the keys in the same order.

    Arguments are built, and their weights drawn, in the order of the keys: in another order the same seed gives another
    model. Scalars of numpy are written as Python's.

    Raises:
        yaml.YAMLError, TypeError: it holds what cannot be written.
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=9999)

"""Everything about a config that can be told before a process is started or a file of the dataset is read.

The whole config is resolved, every call is compared with the signature of what it calls, settings with their types and
bounds; then the parts that cost nothing are built: the model without memory for its weights, the optimiser over one
number, augmentations and sampling.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from hdetr_d2.data.generated.store import ensure_generated, require_drawable
from hdetr_d2.errors import UserError

from .config import schedule_settings, train_settings
from .errors import ConfigError
from .hints import (
    argument_hints,
    argument_names,
    describe,
    fits,
    is_call,
    name_of,
    required_names,
    takes_any,
    target_of,
)
from .optim import ParamRule, get_param_groups
from .settings import DatasetSettings
from .typed import AtLeastOne, Bounds, Fraction, NotNegative, Positive, bounds_of, from_mapping, shown, unknown_key_hint

BUILT_LATER: Mapping[str, str] = {"optimizer.params": "model"}
"""Arguments that the package itself gives to what a node calls."""

_CHECKED_ROOTS = ("dataset", "dataloader", "model", "optimizer", "schedule", "train")
_LIMITS: Mapping[str, Bounds] = {
    "num_workers": Bounds(0, 1024),
    "batch_size": bounds_of(AtLeastOne),
    "accumulate": bounds_of(AtLeastOne),
    "num_detections": bounds_of(AtLeastOne),
    "num_queries": bounds_of(AtLeastOne),
    "num_classes": bounds_of(AtLeastOne),
    # Far beyond any model: to build so many and refuse them afterwards would take minutes and all memory.
    "num_layers": Bounds(0, 256),
    "num_levels": Bounds(1, 32),
    "weight": bounds_of(NotNegative),
    "class_weight": bounds_of(NotNegative),
    "l1_weight": bounds_of(NotNegative),
    "giou_weight": bounds_of(NotNegative),
    "encoder_weight": bounds_of(NotNegative),
    "lr": bounds_of(NotNegative),
    "base_lr": bounds_of(NotNegative),
    "weight_decay": bounds_of(NotNegative),
    "eps": bounds_of(NotNegative),
    "momentum": bounds_of(NotNegative),
    "dropout": bounds_of(Fraction),
    "probability": bounds_of(Fraction),
    "crop_probability": bounds_of(Fraction),
    "pixel_std": bounds_of(Positive),
}
"""Arguments, and items of lists, that mean the same wherever they stand."""

_MAY_BE_INFINITE = ("norm_type",)
_KNOWN_LATER = ("num_classes", "image_counts", "json_file", "image_root")  # from the dataset
_LARGEST_WHOLE_NUMBER = 2**63 - 1
_PROBE_CLASSES = (80, 1)


def validate(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Refuse a config that no run could be made from; ``cfg`` is not changed, and no file of a dataset is read.

    Args:
        overrides: that were applied to it, for messages about what follows from them elsewhere.

    Raises:
        ConfigError: the first mistake; the message names the key.
    """
    try:
        _validate(cfg)
    except ConfigError as error:
        keys = {text: text.partition("=")[0].strip(" +") for text in overrides}
        root = str(error).partition(" ")[0].partition(".")[0].rstrip(":")
        if any(key in str(error) for key in keys.values()):
            raise
        suspects = [text for text, key in keys.items() if key.partition(".")[0] == root] or list(overrides)
        if not suspects:
            raise
        raise ConfigError(f"{error} (given: {shorten(' '.join(suspects), 200)})") from error


def _validate(cfg: DictConfig) -> None:
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    for root in _CHECKED_ROOTS:
        if not isinstance(plain[root], Mapping):
            raise ConfigError(f"{root} must be a mapping, not {shown(plain[root])}")
    resolved = resolve_all(cfg)
    for root in ("model", "optimizer"):
        if not is_call(resolved[root]):
            raise ConfigError(f"{root} must be a call, L(...)(...), not {shown(resolved[root])}")
    train_settings(cfg)
    schedule_settings(cfg)
    dataset = DatasetSettings.from_config(resolved["dataset"])
    _check_generated(dataset)
    for follows in (False, True):  # what is written first, then what follows from it
        for root in _CHECKED_ROOTS:
            _check_numbers(resolved[root], plain[root], root, follows=follows)
            _check_calls(resolved[root], plain[root], root, follows=follows)
    _check_optimizer(resolved["optimizer"])
    _check_loading(cfg, resolved["dataloader"])
    _check_model(cfg)


def _check_generated(dataset: DatasetSettings) -> None:
    if dataset.generate is None:
        return
    _check_call({"_target_": ensure_generated, **dataset.generate}, {}, "dataset.generate", follows=False)
    try:
        require_drawable(**dataset.generate)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"dataset.generate: {str(error).partition(' (got ')[0]}") from error


def resolve_all(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain dicts and lists, interpolations resolved.

    Raises:
        ConfigError: an interpolation leads nowhere or to itself, or a value is missing; the message names its key.
    """
    for key in missing_keys(cfg, ""):
        raise ConfigError(f'{key} is "???", which is to be set: {key}=...')
    try:
        resolved = OmegaConf.to_container(cfg, resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        found = sorted(_unresolved(cfg, ""), key=lambda pair: pair[0].count("."))[:3] or [("the config", str(error))]
        keys = ", ".join(key for key, _ in found)
        raise ConfigError(f"{keys} cannot be resolved: {found[0][1]}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def missing_keys(node: Any, where: str) -> Iterator[str]:
    """Dotted names of the values that are "???"."""
    for name, path in _children(node, where):
        if OmegaConf.is_missing(node, name):
            yield path
        elif not OmegaConf.is_interpolation(node, name):
            yield from missing_keys(node[name], path)


def _children(node: Any, where: str) -> Iterator[tuple[Any, str]]:
    names: list[Any] = []
    if OmegaConf.is_dict(node):
        names = list(node)
    elif OmegaConf.is_list(node):
        names = list(range(len(node)))
    yield from ((name, f"{where}.{name}" if where else str(name)) for name in names)


def _unresolved(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """The keys that cannot be resolved, and why."""
    for name, path in _children(node, where):
        try:
            value = node[name]
        except RecursionError:
            yield path, "it leads back to itself"
            continue
        except (OmegaConfBaseException, ValueError) as error:
            yield path, str(error).partition("\n")[0]
            continue
        if not OmegaConf.is_interpolation(node, name):
            yield from _unresolved(value, path)
        elif OmegaConf.is_config(value) and f"{path}.".startswith(f"{value._get_full_key(None)}."):
            yield path, "it refers to what it is a part of"


def _entries(node: Any) -> list[tuple[Any, Any]]:
    """(name, value) of a plain mapping or list."""
    return list(node.items()) if isinstance(node, Mapping) else list(enumerate(node)) if isinstance(node, list) else []


def _raw(plain: Any, name: Any) -> Any:
    """A part of the config that is not resolved; the whole of what an interpolation stands for counts as that."""
    return plain if isinstance(plain, str) else plain[name] if isinstance(plain, list) else plain.get(name)


def _follows(plain: Any) -> bool:
    return isinstance(plain, str) and "${" in plain


def _check_numbers(node: Any, plain: Any, where: str, *, follows: bool) -> None:
    """Refuse numbers that make sense nowhere, and those out of the bounds of an argument of their name."""
    for name, value in _entries(node):
        _check_numbers(value, _raw(plain, name), f"{where}.{name}", follows=follows)
    if not isinstance(node, (int, float)) or isinstance(node, bool) or _follows(plain) != follows:
        return
    name = next((part for part in reversed(where.split(".")) if not part.isdigit()), "")
    if math.isnan(node):
        raise ConfigError(f"{where} is not a number (nan)")
    if math.isinf(node) and name not in _MAY_BE_INFINITE:
        raise ConfigError(f"{where} must be finite, not {node}")
    if isinstance(node, int) and abs(node) > _LARGEST_WHOLE_NUMBER:
        raise ConfigError(f"{where}={node} is too large a number")
    if name in _LIMITS and not _LIMITS[name].allow(node):
        raise ConfigError(f"{where} must {_LIMITS[name].demand(node)}, not {node}")


def _check_calls(node: Any, plain: Any, where: str, *, follows: bool) -> None:
    """Compare every call with the signature of what it calls, from the outside to the inside."""
    if isinstance(node, Mapping) and is_call(node):
        _check_call(node, plain, where, follows=follows)
    for name, value in _entries(node):
        _check_calls(value, _raw(plain, name), f"{where}.{name}", follows=follows)


def _check_call(node: Mapping[str, Any], plain: Any, where: str, *, follows: bool) -> None:
    target = target_of(node, where)
    given = {str(name): value for name, value in node.items() if name != "_target_"}
    known = argument_names(target)
    for name in given:
        if name not in known and not takes_any(target):
            raise ConfigError(f"{where}.{name}: {name_of(target)} takes no {name}; {unknown_key_hint(name, known)}")
    lacking = [name for name in required_names(target) if name not in given and BUILT_LATER.get(where) != name]
    if lacking:
        raise ConfigError(
            f"{where}: {name_of(target)} needs {', '.join(lacking)}; set {where}.{lacking[0]}=... (it takes "
            f"{', '.join(known)})"
        )
    hints = argument_hints(target)
    for name, value in given.items():
        if name not in hints or (value is None and name in _KNOWN_LATER) or _follows(_raw(plain, name)) != follows:
            continue
        if not fits(hints[name], value):
            raise ConfigError(f"{where}.{name} must be {describe(hints[name])}, not {shown(value)}")


def _check_optimizer(node: Mapping[str, Any]) -> None:
    """Build it over one number.

    Raises:
        ConfigError: betas that make no sense, a rule that means nothing, or the optimiser refuses.
    """
    for name in ("betas", "beta"):
        for value in node.get(name) or ():
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ConfigError(f"optimizer.{name} must be numbers from 0 to below 1, not {shown(node[name])}")
    params = node.get("params")
    if not is_call(params) or target_of(params, "optimizer.params") is not get_param_groups:
        return
    for index, rule in enumerate(params.get("rules") or ()):
        if isinstance(rule, Mapping):
            where = f"optimizer.params.rules.{index}"
            checked = from_mapping(ParamRule, rule, where)
            for name in ("lr_factor", "weight_decay_factor"):
                factor = getattr(checked, name)
                if factor is not None and not factor >= 0:
                    raise ConfigError(f"{where}.{name} must not be negative, not {factor}")
    arguments = {name: value for name, value in node.items() if name != "params"}
    one = nn.Parameter(torch.zeros(1))
    build({**arguments, "params": [{"name": "one", "params": [one]}]}, "optimizer")


def _check_loading(cfg: DictConfig, resolved: Mapping[str, Any]) -> None:
    """Build what of the loaders reads no data: mappers, sampling, transforms of batches."""
    for split in ("train", "test"):
        loader = resolved.get(split)
        if not is_call(loader):
            raise ConfigError(f"dataloader.{split} must be a call, L(...)(...), not {shown(loader)}")
        for name, part in loader.items():
            if name != "dataset" and isinstance(part, (Mapping, list)):
                build(cfg.dataloader[split][name], f"dataloader.{split}.{name}")
        if not is_call(loader.get("dataset", {"_target_": None})):
            raise ConfigError(f"dataloader.{split}.dataset must be a call, L(...)(...), not {shown(loader['dataset'])}")
    evaluator = resolved.get("evaluator")
    if not is_call(evaluator):
        raise ConfigError(f"dataloader.evaluator must be a call, L(...)(...), not {shown(evaluator)}")
    evaluated, tested = evaluator.get("dataset_name"), resolved["test"].get("dataset", {}).get("name")
    if evaluated is not None and tested is not None and evaluated != tested:
        raise ConfigError(
            f"dataloader.evaluator.dataset_name={evaluated} is not the dataset of dataloader.test, {tested}"
        )


def _check_model(cfg: DictConfig) -> None:
    """Build it on the meta device, where weights have sizes and no memory."""
    copy = DictConfig(OmegaConf.to_container(cfg, resolve=False), flags={"allow_objects": True})
    for path in _pretrained(copy.model, "model"):
        OmegaConf.update(copy, path, False)  # nothing is downloaded
    counts = [copy.dataset.num_classes] if copy.dataset.get("num_classes") is not None else list(_PROBE_CLASSES)
    errors: list[ConfigError] = []
    for count in counts:
        copy.dataset.num_classes = count
        if copy.dataset.get("image_counts", 0) is None or len(counts) > 1:
            copy.dataset.image_counts = [1] * count
        try:
            with torch.device("meta"):
                model = build(copy.model, "model")
        except ConfigError as error:
            if isinstance(error.__cause__, NotImplementedError) or "meta tensor" in str(error):
                return  # a part of the user's own that computes while it is built
            errors.append(error)
            continue
        _check_size(model)
        return
    raise errors[0]


def _pretrained(node: Any, where: str) -> Iterator[str]:
    for name, path in _children(node, where):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if name == "pretrained" and node[name] is True:
            yield path
        yield from _pretrained(node[name], path)


def _check_size(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model calls what makes a {type(model).__name__}, not a torch.nn.Module")
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            raise ConfigError(f"model: the parameter {name} would be empty, of shape {list(parameter.shape)}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ConfigError(
            f"the model's weights are {size / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
        )


def build(node: Any, where: str) -> Any:
    """Detectron2's ``instantiate``, whose failures name the node that cannot be built.

    Args:
        node: of a config, or plain.
        where: its dotted name.

    Raises:
        ConfigError: an object's constructor refuses its arguments.
    """
    logger = logging.getLogger("detectron2.config.instantiate")
    disabled, logger.disabled = logger.disabled, True  # it logs what is raised anyway
    try:
        return instantiate(node)
    except Exception as error:
        failed, cause = _failing(node, where) or (where, error)
        if isinstance(cause, UserError) and failed in str(cause):
            raise
        reason = str(cause) if isinstance(cause, (UserError, ValueError)) else f"{type(cause).__name__}: {cause}"
        raise ConfigError(f"{failed} cannot be built: {reason}") from cause
    finally:
        logger.disabled = disabled


def _failing(node: Any, where: str) -> tuple[str, Exception] | None:
    """The innermost node that cannot be built, and what it raises."""
    names: Any = node if isinstance(node, Mapping) else range(len(node)) if _is_list(node) else ()
    for name in names:
        child = node[name]
        if isinstance(child, Mapping) or _is_list(child):
            found = _failing(child, f"{where}.{name}")
            if found is not None:
                return found
    try:
        instantiate(node)
    except Exception as error:
        return where, error
    return None


def _is_list(node: Any) -> bool:
    return isinstance(node, list) or OmegaConf.is_list(node)

"""What of a model is trained, and what kind of BatchNorm it has; chosen by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

import torch
from detectron2.layers import NaiveSyncBatchNorm
from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import nn

from .errors import ConfigError
from .settings import TrainSettings

logger = logging.getLogger(__name__)


def prepare_model(model: nn.Module, settings: TrainSettings, *, device: torch.device, world_size: int) -> nn.Module:
    """Apply ``train.freeze_bn``, ``train.sync_bn`` and ``train.freeze``; ``model``, changed in place.

    Raises:
        ConfigError: a name matches nothing, or nothing is left to be trained.
    """
    if settings.freeze_bn:
        freeze_batch_norms(model, settings.freeze_bn)
    if settings.sync_bn:
        synchronise_batch_norms(model, device=device, world_size=world_size)
    if settings.freeze:
        freeze_parameters(model, settings.freeze)
    return model


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """No gradient for parameters whose dotted name has a match of one of the regular expressions.

    The statistics of a BatchNorm are no parameters: `freeze_batch_norms` stops those.

    Raises:
        ConfigError: a pattern matches no parameter, or nothing is left to be trained.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    frozen = set().union(*_match(list(parameters), patterns, "freeze"))
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"train.freeze={list(patterns)} leaves nothing to be trained")
    logger.info("%d parameter tensors are frozen by train.freeze", len(frozen))


def freeze_batch_norms(model: nn.Module, patterns: Sequence[str]) -> None:
    """Turn BatchNorms into fixed scales and shifts that keep their statistics; state dicts keep their names.

    Raises:
        ConfigError: a pattern matches no BatchNorm.
    """
    norms = _batch_norms(model)
    chosen = {id(norms[name]) for names in _match(list(norms), patterns, "freeze_bn") for name in names}
    # under all names of each, so that what is shared stays shared
    _replace(model, {name: norm for name, norm in norms.items() if id(norm) in chosen}, freeze_batch_norm_2d)
    logger.info("%d BatchNorms are frozen by train.freeze_bn", len(chosen))


def synchronise_batch_norms(model: nn.Module, *, device: torch.device, world_size: int) -> None:
    """Statistics over all processes for every BatchNorm that is trained; nothing to do where there is one process.

    On GPUs it is PyTorch's, on the CPU Detectron2's, which takes the processes' images to have the same size.

    Raises:
        ConfigError: the model has no BatchNorm, or on the CPU one of another kind than ``torch.nn.BatchNorm2d``.
    """
    norms = _batch_norms(model)
    if not norms:
        raise ConfigError("train.sync_bn=true, but the model has no BatchNorm that is trained; set train.sync_bn=false")
    if world_size > 1:
        _replace(model, norms, _synchronised if device.type == "cuda" else _naive)


def _synchronised(module: nn.Module) -> nn.Module:
    return convert_sync_batchnorm(module)  # knows timm's BatchNorm with an activation too


def _naive(module: nn.Module) -> nn.Module:
    if type(module) is not nn.BatchNorm2d:
        raise ConfigError(f"train.sync_bn on the CPU knows torch.nn.BatchNorm2d only, not {type(module).__name__}")
    made = NaiveSyncBatchNorm(module.num_features, eps=module.eps, momentum=module.momentum, affine=module.affine)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(module, name))  # the same tensors
    return made


def _batch_norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """BatchNorms of images under all of their names."""
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.BatchNorm2d)
    }


def _match(names: Sequence[str], patterns: Sequence[str], setting: str) -> list[set[str]]:
    """The names that each pattern matches somewhere.

    Raises:
        ConfigError: one matches none, or is no regular expression.
    """
    found = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f'train.{setting}: "{pattern}" is no regular expression: {error}') from error
        found.append({name for name in names if expression.search(name)})
        if not found[-1]:
            parts = sorted({".".join(name.split(".")[:2]) for name in names})
            what = "parameter" if setting == "freeze" else "BatchNorm"
            there = f"names begin with {', '.join(parts[:12])}" if parts else "the model has none"
            raise ConfigError(f'train.{setting}: "{pattern}" matches no {what}; {there}')
    return found


def _replace(model: nn.Module, modules: dict[str, nn.BatchNorm2d], convert: Callable[[nn.Module], nn.Module]) -> None:
    """Put ``convert(module)`` in the places of each module; a shared one stays shared."""
    converted: dict[int, nn.Module] = {}
    for name, module in modules.items():
        if id(module) not in converted:
            converted[id(module)] = convert(module).train(module.training)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, converted[id(module)])

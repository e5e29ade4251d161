"""From a config's nodes to the parts of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from detectron2.config import instantiate
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hdetr_d2.errors import UserError
from hdetr_d2.seeding import seed_everything

from .config import train_settings
from .distributed import resolve_device
from .errors import ConfigError
from .freezing import prepare_model
from .optim import describe_param_groups
from .precision import set_matmul_precision

logger = logging.getLogger(__name__)

T = TypeVar("T")


def build_part(cfg: DictConfig, key: str) -> Any:
    """Build the node ``key`` of a config.

    Args:
        key: dotted.

    Raises:
        ConfigError: what the node calls refuses its arguments; the message names the key.
    """
    try:
        return instantiate(OmegaConf.select(cfg, key))
    except UserError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{key} cannot be built: {error}") from error


def build_all(cfg: DictConfig, key: str, kind: type[T]) -> list[T]:
    """Build a list of nodes, each of which must give a ``kind``.

    Raises:
        ConfigError: a node cannot be built, or gives something else.
    """
    nodes: Sequence[Any] = OmegaConf.select(cfg, key) or ()
    parts = [build_part(cfg, f"{key}[{index}]") for index in range(len(nodes))]
    for index, part in enumerate(parts):
        if not isinstance(part, kind):
            raise ConfigError(f"{key}[{index}] gives a {type(part).__name__}; it must be a Detectron2 {kind.__name__}")
    return parts


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on its device, initialised from ``train.seed`` alike in every process, with its frozen parts."""
    settings = train_settings(cfg)
    set_matmul_precision(settings.matmul_precision)
    device = resolve_device(settings.device)
    seed_everything(settings.seed)
    model = prepare_model(build_part(cfg, "model"), settings, device=device, world_size=comm.get_world_size())
    model = model.to(device)
    seed_everything(settings.seed + comm.get_rank())  # dropout differs between the processes
    return model


def compile_model(model: nn.Module) -> None:
    """What ``train.compile`` asks for; ``model``, changed in place. Its weights keep their names.

    Raises:
        ConfigError: the model says nothing of what can be compiled.
    """
    compile_parts = getattr(model, "compile_parts", None)
    if compile_parts is None:
        raise ConfigError(
            f"train.compile=True needs a model with a method compile_parts; {type(model).__name__} has none, set "
            "train.compile=False"
        )
    compile_parts()


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over ``model``, with the groups that ``optimizer.params`` describes."""
    node = DictConfig(OmegaConf.to_container(cfg, resolve=False), flags={"allow_objects": True})
    node.optimizer.params.model = model
    optimizer = build_part(node, "optimizer")
    logger.info("optimiser %s\n%s", type(optimizer).__name__, describe_param_groups(optimizer.param_groups))
    return optimizer

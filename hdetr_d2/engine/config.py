"""From a config file and overrides to the one resolved config of a run.

Resolving happens once, before anything is built: the class count and the number of images are read from the training
json, iterations follow from them, and the result is saved so that it alone reproduces the run.
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hdetr_d2.errors import UserError

from ..compat import save_config
from ..model_zoo import config_path, load_recipe
from .errors import ConfigError
from .overrides import apply_overrides
from .schedule import ScheduleSettings, epochs_to_iterations
from .settings import TrainSettings

ROOT_KEYS = ("dataset", "dataloader", "model", "optimizer", "schedule", "train")
"""What a config must define; further root keys are the user's own."""


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """The iterations of a run, derived from epochs, dataset size and batch size.

    Args:
        num_images: in the training set.
        iterations_per_epoch: optimiser steps in which every image is seen once, the last batch filled up.
        max_iter: optimiser steps of the whole run.
        checkpoint_period: steps between checkpoints; 0 is only at the end.
        eval_period: steps between evaluations; 0 is only at the end.
    """

    num_images: int
    iterations_per_epoch: int
    max_iter: int
    checkpoint_period: int
    eval_period: int


def find_config(name: str) -> str:
    """The path of a config file, given as a path or as a name relative to the packaged ``configs/``.

    Raises:
        ConfigError: neither exists.
    """
    if not name:
        raise ConfigError("no config is named: give a file, or the name of a packaged one (--config-file)")
    if os.path.isfile(name):
        return name
    if os.path.isdir(name):
        raise ConfigError(f"{name} is a folder, no config; of a run, give its config.yaml")
    packaged = name.removeprefix("./").removeprefix("configs/")
    try:
        return config_path(packaged)
    except FileNotFoundError as error:
        raise ConfigError(f'there is no file "{name[:200]}", and among the packaged configs {error}') from error


def load(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config and apply overrides; nothing is read from the dataset yet.

    Raises:
        ConfigError: no such file, it cannot be loaded, a root key is missing, or an override is refused
            (`apply_overrides`).
    """
    path = find_config(config_file)
    try:
        cfg = load_recipe(path)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a config is a program
        reason = error.__cause__ if isinstance(error, SyntaxError) and error.__cause__ else error
        told = f"{type(error).__name__}: {getattr(reason, 'msg', reason)}"
        raise ConfigError(f"{path}{_line_in(path, error)}: {told}") from error
    if not OmegaConf.is_dict(cfg):
        raise ConfigError(f"{path} is no config: it holds no mapping")
    missing = [key for key in ROOT_KEYS if key not in cfg]
    if missing:
        raise ConfigError(f"{config_file} does not define {', '.join(missing)}")
    return apply_overrides(cfg, overrides)


def _line_in(path: str, error: BaseException) -> str:
    """Where in the config file an exception comes from."""
    if isinstance(error, SyntaxError) and isinstance(error.__cause__, SyntaxError):
        return f":{error.__cause__.lineno}" if error.__cause__.lineno else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f":{lines[-1]}" if lines else ""


def train_settings(cfg: DictConfig) -> TrainSettings:
    """The checked ``train`` node."""
    return TrainSettings.from_config(_resolved(cfg, "train"))


def schedule_settings(cfg: DictConfig) -> ScheduleSettings:
    """The checked ``schedule`` node."""
    return ScheduleSettings.from_config(_resolved(cfg, "schedule"))


def _resolved(cfg: DictConfig, key: str) -> dict[Any, Any]:
    container = OmegaConf.to_container(cfg[key], resolve=True)
    if not isinstance(container, dict):
        raise ConfigError(f"{key} must be a mapping")
    return container


def run_length(cfg: DictConfig, num_images: int) -> RunLength:
    """Derive the iterations of a run over ``num_images`` training images."""
    train = train_settings(cfg)
    if num_images < 1:
        raise ConfigError(f"the training set {cfg.dataset.train.json} has no images")
    per_epoch = math.ceil(num_images / train.batch_size)
    checkpoint, evaluation = train.checkpoint.period_epochs, train.eval_period_epochs
    return RunLength(
        num_images=num_images,
        iterations_per_epoch=per_epoch,
        max_iter=schedule_settings(cfg).max_iter(per_epoch),
        checkpoint_period=epochs_to_iterations(checkpoint, per_epoch) if checkpoint > 0 else 0,
        eval_period=epochs_to_iterations(evaluation, per_epoch) if evaluation > 0 else 0,
    )


def save_resolved(cfg: DictConfig, output_dir: str) -> str:
    """Write ``config.yaml``; its path.

    Raises:
        ConfigError: the config holds something that no file can name, a lambda for example.
    """
    path = os.path.join(output_dir, "config.yaml")
    try:
        save_config(cfg, path)
    except ValueError as error:
        raise ConfigError(f"the config cannot be saved: {error}") from error
    return path

"""What a fine-tuning starts from: a config, and weights for its classes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from hdetr_d2.checkpoint.class_heads import RECORD, Scoring
from hdetr_d2.checkpoint.classes import ClassMatch, transfer_classes
from hdetr_d2.detector import Source, open_source
from hdetr_d2.detector.safe_config import UnsafeConfigError, require_ours
from hdetr_d2.engine.config import load
from hdetr_d2.errors import UserError
from hdetr_d2.model_zoo import entries
from hdetr_d2.output import write_atomically

WEIGHT_FILES = (".pth", ".safetensors")
_ZOO = "zoo:"
_ADDRESSES = (_ZOO, "hf://")


class StartError(UserError, ValueError):
    """A fine-tuning cannot start from what was named; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a fine-tuning starts from.

    Args:
        cfg: the config, of other data.
        source: where the weights come from; None starts from nothing.
        name: what messages call it.
        note: where the weights come from, or why there are none.
    """

    cfg: DictConfig
    source: Source | None
    name: str
    note: str


def open_start(model: str) -> Start:
    """Find what a fine-tuning starts from.

    Args:
        model: a config (a file, or the name of a packaged one), whose published weights are taken if they are on this
            machine; ``zoo:NAME``, which needs them; a run's folder; or a file of weights of this project.

    Raises:
        UserError: there is no such thing, or it cannot be read.
    """
    path = Path(os.path.expanduser(model))
    if model.startswith(_ADDRESSES) or os.path.isdir(path) or path.suffix in WEIGHT_FILES:
        return _of_source(_open(model), model)
    cfg = load(model)
    if cfg.train.init_checkpoint:
        return Start(cfg=cfg, source=None, name=model, note=f"train.init_checkpoint, {cfg.train.init_checkpoint}")
    name = Path(model).stem
    if name not in entries():
        return Start(cfg=cfg, source=None, name=model, note="from nothing: nobody has published any for this config")
    try:
        source = _open(f"{_ZOO}{name}")
    except UserError as error:
        return Start(cfg=cfg, source=None, name=model, note=f"from nothing: {error}")
    return Start(cfg=cfg, source=source, name=model, note=f"those of {_ZOO}{name}, {source.path}")


def _open(model: str) -> Source:
    """The one way to weights: `open_source`, which knows published models where it can."""
    if model.startswith(_ADDRESSES) and importlib.util.find_spec("hdetr_d2.detector.published") is None:
        raise StartError(f"{model}: published models cannot be opened by this version; name a file of weights")
    return open_source(model)


def _of_source(source: Source, model: str) -> Start:
    """The whole config of a model is used here, its loaders and optimiser too."""
    cfg = source.cfg
    if "optimizer" not in cfg or "dataloader" not in cfg:
        raise StartError(f"{model}: its config has no optimizer and dataloader to train with; name a config")
    cfg.train.hooks, cfg.train.writers, cfg.train.init_checkpoint = [], [], ""
    if not (Path(source.path).parent / "config.yaml").is_file():
        try:
            require_ours(cfg)
        except UnsafeConfigError as error:
            raise StartError(f"{source.path}: {error}; put the run's config.yaml beside the file") from error
    return Start(cfg=cfg, source=source, name=model, note=f"those of {source.path}")


def match_classes(source: Source, names: Sequence[str]) -> ClassMatch:
    """Which classes of a dataset a model knows already, by name.

    Args:
        names: of the dataset, in the order of its category ids.
    """
    known = source.description.class_names
    if not source.description.names_known:
        return ClassMatch(known, tuple(names), (None,) * len(names))
    try:
        return ClassMatch.of(known, names)
    except ValueError:  # two names that differ in case, for example: then only what is written alike is the same
        row_of = {name: row for row, name in enumerate(known)}
        return ClassMatch(known, tuple(names), tuple(row_of.get(name) for name in names))


def write_start_weights(source: Source, match: ClassMatch, path: Path) -> None:
    """Write the weights with class heads for the classes of the dataset, as ``train.init_checkpoint`` takes them.

    Raises:
        StartError: the weights' class heads do not fit the classes that the model names.
    """
    state: Mapping[str, Tensor] = {**source.state, **source.average}
    scoring = Scoring.of_config(source.cfg.model)
    try:
        moved, _ = transfer_classes(state, match, scoring=scoring)
    except ValueError as error:
        raise StartError(f"{source.path}: its classes cannot be exchanged: {error}") from error
    content: dict[str, Any] = {"model": moved, RECORD: scoring.record()}

    def write(file: IO[bytes]) -> None:
        torch.save(content, file)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(os.fspath(path), write)

"""From what a user names, a run's folder, a file or a published model, to a config, weights and a description."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from hdetr_d2.checkpoint import CheckpointError, load_checkpoint
from hdetr_d2.compat import load_config
from hdetr_d2.description import KEY, ModelDescription, classes_of, read_description
from hdetr_d2.errors import UserError

from .safe_config import UnsafeConfigError, read_config, require_ours

logger = logging.getLogger(__name__)

ZOO = "zoo:"
PREFERRED = ("model_best.pth", "model_final.pth")


class SourceError(UserError, ValueError):
    """A model cannot be loaded from what was named; the message says what was looked for."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a model is built from.

    Args:
        cfg: its config; ``model`` is what is built.
        state: the weights, in our names.
        average: those of a moving average, which replace them; each tensor under one of its names.
        description: of the model.
        path: of the file that the weights came from.
    """

    cfg: DictConfig
    state: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    description: ModelDescription
    path: str


def open_source(source: str | os.PathLike[str]) -> Source:
    """Find and read a model.

    Args:
        source: a run's folder (of its files ``model_best.pth`` is taken, else ``model_final.pth``, else the latest
            checkpoint), a ``.pth``, a ``.safetensors`` with its ``.json``, or ``zoo:NAME``, a published model whose
            weights are on this machine.

    Raises:
        SourceError: there is no such thing, or it lacks what a detector needs.
        CheckpointError: the file cannot be read.
    """
    name = os.fspath(source)
    if name.startswith(ZOO):
        from .published import open_published

        return open_published(name.removeprefix(ZOO))
    path = Path(name).expanduser()
    if path.is_dir():
        return _open_file(weights_of_run(path))
    if path.is_file():
        return _open_file(path)
    raise SourceError(
        f"{name} is neither a run's folder nor a file; give one of these, or zoo:NAME (hdetr-d2 configs list)"
    )


def weights_of_run(folder: Path) -> Path:
    """The file of a run that holds its best weights.

    Raises:
        SourceError: the folder holds none.
    """
    for name in PREFERRED:
        if (folder / name).is_file():
            return folder / name
    tag = folder / "last_checkpoint"
    if tag.is_file():
        latest = folder / tag.read_text().strip()
        if latest.is_file():
            return latest
    raise SourceError(f"{folder} holds no {' or '.join(PREFERRED)} and no checkpoint; train there, or name a file")


def _open_file(path: Path) -> Source:
    checkpoint = load_checkpoint(path)
    content, twin = checkpoint.get(KEY), path.with_suffix(".json")
    if content is not None or (path.suffix == ".safetensors" and twin.is_file()):
        description = read_description(twin) if content is None else ModelDescription.from_dict(content, str(path))
        cfg = _config_of(description, path)
    else:
        cfg = _config_beside(path)
        description = _describe_former(cfg, path)
    without_pretrained(cfg.model)
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no weights of a model; give a model_final.pth of a run")
    return Source(cfg=cfg, state=state, average=_average(checkpoint, cfg), description=description, path=str(path))


def _average(checkpoint: Mapping[str, Any], cfg: DictConfig) -> Mapping[str, Tensor]:
    """The moving average of a checkpoint to train on from, where ``train.ema.final`` says that it is the result."""
    settings = cfg.get("train", {}).get("ema")
    if "ema" not in checkpoint or not settings or settings.get("final", "ema") != "ema":
        return {}
    average: Mapping[str, Tensor] = checkpoint["ema"]["average"]
    return average


BUILT = ("model", "dataloader.test.mapper")
"""The parts of a config that a detector builds."""


def _config_of(description: ModelDescription, path: Path) -> DictConfig:
    """The config of a description. It runs no code but ours; a run with code of its own has its config.yaml beside."""
    try:
        cfg = read_config(description.config)
        require_ours(cfg, *BUILT)
    except UnsafeConfigError as error:
        if (path.parent / "config.yaml").is_file():
            return _config_beside(path)
        raise SourceError(
            f"{path}: {error}. It is not run from a file of weights; if you trust it, put the run's config.yaml beside "
            "the file"
        ) from error
    return cfg


def without_pretrained(node: Any) -> None:
    """Have the parts of a model start from nothing; changes the node. What is downloaded would be overwritten."""
    if isinstance(node, DictConfig):
        if "pretrained" in node and node.pretrained is True:
            node.pretrained = False
        if node.get("checkpoint_path"):  # timm's
            node.checkpoint_path = ""
        for name in map(str, node):
            if not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
                without_pretrained(node[name])
    elif isinstance(node, ListConfig):
        for item in node:
            without_pretrained(item)


def _config_beside(path: Path) -> DictConfig:
    config = path.parent / "config.yaml"
    if not config.is_file():
        raise SourceError(
            f"{path} does not describe itself, and {config} is not there: put the run's config.yaml beside it, or "
            "build the model from a config with Detector.from_lazyconfig"
        )
    try:
        return load_config(config)
    except Exception as error:  # a config may raise anything
        raise SourceError(f"{config} cannot be loaded: {error}") from error


def _describe_former(cfg: DictConfig, path: Path) -> ModelDescription:
    """What can be told of a checkpoint from before descriptions: from its config, and its annotation file if there."""
    names, ids = classes_of(cfg)
    names_known = bool(names)
    count = cfg.get("dataset", {}).get("num_classes")
    if not names:
        if count is None:
            raise SourceError(f"{path}: neither the file nor its config.yaml says how many classes the model has")
        names, ids = [f"class {index}" for index in range(count)], list(range(count))
        logger.warning("%s does not name its classes: they are called class 0 to class %d", path, count - 1)
    logger.warning("%s does not describe itself; what it lacks is taken from config.yaml beside it", path)
    cfg.dataset.num_classes = len(names)
    return ModelDescription.of(cfg, class_names=names, category_ids=ids, version="", names_known=names_known)

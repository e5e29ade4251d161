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

from hdetr_d2.checkpoint import CheckpointError, load_checkpoint, tagged
from hdetr_d2.compat import load_config
from hdetr_d2.description import KEY, ModelDescription, classes_of, read_description
from hdetr_d2.errors import UserError
from hdetr_d2.weights import is_address, local_file
from hdetr_d2.weights.hub import HUB

from .safe_config import UnsafeConfigError, read_config, require_ours

logger = logging.getLogger(__name__)

ZOO = "zoo:"
"""Before the name of a published model."""
TRANSFORMERS_WEIGHTS = "model.safetensors"
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


def open_source(source: str | os.PathLike[str], *, download: bool | None = None) -> Source:
    """Find and read a model.

    Args:
        source: a run's folder (of its files ``model_best.pth`` is taken, else ``model_final.pth``, else the latest
            checkpoint), a ``.pth``, a ``.safetensors`` with its ``.json``, or what `checkpoint_file` knows besides.
        download: whether the weights of a published model are downloaded where they are not on this machine; None does
            so where the environment (``HDETR_D2_DOWNLOAD=1``) or the user on a terminal says so.

    Raises:
        SourceError: there is no such thing, or it lacks what a detector needs.
        CheckpointError: the file cannot be read.
        DownloadError: it cannot be downloaded.
    """
    if not os.fspath(source):
        raise SourceError('"" names no model; give a run\'s folder, a file, or zoo:NAME')
    path = checkpoint_file(source, download=download)
    if os.path.isdir(path) and (path / TRANSFORMERS_WEIGHTS).is_file():  # Path.is_dir raises on a name too long
        return _open_transformers(path)
    if os.path.isdir(path):
        return _open_file(weights_of_run(path))
    if os.path.isfile(path):
        return _open_file(path)
    from hdetr_d2.model_zoo import entries

    name = os.fspath(source)
    published = [entry.name for entry in entries().values() if name in (entry.name, entry.config)]
    hint = f"did you mean {ZOO}{published[0]}?" if published else f"give one of these, or {ZOO}NAME (docs/recipes.md)"
    raise SourceError(f"{name} is neither a run's folder nor a file; {hint}")


def checkpoint_file(source: str | os.PathLike[str], *, download: bool | None = None) -> Path:
    """A path for what a user named; what is elsewhere is brought here, and other projects' models are converted.

    Args:
        source: a path, which is given back whether it exists or not; ``zoo:NAME``, a published model;
            ``hf://owner/repository``, a model of transformers; ``file://`` or ``http(s)://``, a file.
        download: as of `open_source`; the other addresses are downloaded because they are named.

    Raises:
        UserError: it cannot be had, or not be converted.
    """
    name = os.fspath(source)
    if name.startswith(ZOO):
        from .published import published_file

        return published_file(name.removeprefix(ZOO), download=download)
    if not is_address(name):
        return Path(os.path.expanduser(name))
    from hdetr_d2.model_zoo import weights_folder

    if name.startswith(HUB):
        from .hub import converted_of_hub

        return converted_of_hub(name)
    return local_file(name, weights_folder())


def weights_of_run(folder: Path) -> Path:
    """The file of a run that holds its best weights.

    Raises:
        SourceError: the folder holds none.
        CheckpointError: what it says is its latest is not in it.
    """
    for name in PREFERRED:
        if (folder / name).is_file():
            return folder / name
    latest = tagged(folder)
    if os.path.isfile(latest):
        return Path(latest)
    raise SourceError(f"{folder} holds no {' or '.join(PREFERRED)} and no checkpoint; train there, or name a file")


def _open_transformers(folder: Path) -> Source:
    """A folder that transformers' ``save_pretrained`` wrote."""
    from .hub import convert_transformers

    path = folder / TRANSFORMERS_WEIGHTS
    content = convert_transformers(path, folder / "config.json")
    description = ModelDescription.from_dict(content[KEY], str(path))
    cfg = _config_of(description, path)
    return Source(cfg=cfg, state=content["model"], average={}, description=description, path=str(path))


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
            f"{path} does not describe itself, and {config} is not there: put the run's config.yaml beside it. "
            "Other projects' weights become ours with hdetr-d2 convert; any LazyConfig's model is loaded with "
            "Detector.from_lazyconfig"
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

"""Models of other Detectron2 LazyConfigs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hdetr_d2.checkpoint.loading import MissingCheckpointError
from hdetr_d2.description import ModelDescription
from hdetr_d2.errors import UserError


class LazyConfigError(UserError, ValueError):
    """A config that no detector can be made of; the message names the key that is missing."""


def describe(cfg: DictConfig) -> ModelDescription:
    """What a Detectron2 LazyConfig says of its model.

    Class names are those of the test dataset in Detectron2's catalog, where it is known there.

    Raises:
        LazyConfigError: a key is missing.
    """
    for key in ("model", "dataloader.test.mapper"):
        if OmegaConf.select(cfg, key) is None:
            raise LazyConfigError(f"the config has no {key}, which a detector needs")
    count = _num_classes(OmegaConf.to_container(cfg.model, resolve=True))
    names, ids = _catalog(OmegaConf.select(cfg, "dataloader.test.dataset.names"))
    if count is not None and len(names) != count:
        names, ids = [f"class {index}" for index in range(count)], list(range(count))
    if not names:
        raise LazyConfigError("the config says neither num_classes nor a known dataloader.test.dataset.names")
    order = str(OmegaConf.select(cfg, "dataloader.test.mapper.image_format") or "RGB").upper()
    return ModelDescription(
        config="",
        class_names=tuple(names),
        category_ids=tuple(ids),
        channel_order="bgr" if order == "BGR" else "rgb",
    )


def _num_classes(node: Any) -> int | None:
    """The first ``num_classes`` in a model's config."""
    return next(_values(node, "num_classes"), None)


def _values(node: Any, name: str) -> Iterator[int]:
    if isinstance(node, dict):
        if isinstance(node.get(name), int):
            yield node[name]
        for inner in node.values():
            yield from _values(inner, name)
    elif isinstance(node, list):
        for inner in node:
            yield from _values(inner, name)


def _catalog(dataset: Any) -> tuple[list[str], list[int]]:
    name = dataset if isinstance(dataset, str) else dataset[0] if dataset else None
    if name is None or name not in MetadataCatalog.list():
        return [], []
    metadata = MetadataCatalog.get(name)
    names = list(metadata.get("thing_classes", []))
    to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id", {index: index for index in range(len(names))})
    to_id = {index: identity for identity, index in to_contiguous.items()}
    return names, [to_id[index] for index in range(len(names))]


def load_any(model: nn.Module, weights: str | os.PathLike[str]) -> None:
    """Load what Detectron2's checkpointer loads; nothing for "".

    Raises:
        MissingCheckpointError: there is no such file.
    """
    path = os.fspath(weights)
    if not path:
        return
    if "://" not in path and not os.path.isfile(path):
        raise MissingCheckpointError(f"checkpoint {path} does not exist")
    DetectionCheckpointer(model).load(path)

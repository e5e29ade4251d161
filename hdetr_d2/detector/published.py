"""Published models: the authors' file, converted once and kept with its description."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from filelock import FileLock

from hdetr_d2 import __version__
from hdetr_d2.checkpoint.class_heads import RECORD, Scoring
from hdetr_d2.checkpoint.classes import known_classes
from hdetr_d2.description import KEY, ModelDescription
from hdetr_d2.errors import UserError
from hdetr_d2.model_zoo.entry import Entry
from hdetr_d2.model_zoo.trained import config_of, converted, find_entry, original, original_path, weights_folder
from hdetr_d2.output import write_atomically
from hdetr_d2.weights import sha256_of
from hdetr_d2.weights.checksums import kept_sha256

logger = logging.getLogger(__name__)

CONVERSION = 1
"""Counted up when converted files of earlier versions are no longer right."""


class CacheError(UserError, OSError):
    """The folder of converted files cannot be written."""


def published_file(name: str, *, download: bool | None = None) -> Path:
    """A published model as a checkpoint of ours that describes itself.

    Args:
        name: of an entry of the model zoo.
        download: whether the authors' file is downloaded where it is not there; None as `model_zoo` has it.

    Returns:
        A file below ``weights/converted`` of the cache folder. It alone is enough; the authors' file may then go.

    Raises:
        NoEntryError, MissingWeightsError, DownloadError, CheckpointError: it cannot be had.
    """
    entry = find_entry(name)
    path = original_path(entry)
    assert entry.weights is not None
    sha256 = None if path.is_file() else entry.weights.sha256 or kept_sha256(path)
    if sha256 is not None and (kept := converted_path(entry.name, sha256)).is_file():
        return kept
    path = original(entry, download=download)
    return kept_conversion(entry.name, path, lambda: _convert(entry, path))


def kept_conversion(name: str, path: Path, convert: Callable[[], dict[str, Any]]) -> Path:
    """The converted file of an original, made where there is none; of several processes one makes it.

    Args:
        name: of the model.
        path: of the original.
        convert: gives the content of the converted one.

    Raises:
        CacheError: the folder cannot be written.
    """
    target = converted_path(name, kept_sha256(path) or sha256_of(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_file():
                logger.info("converting %s", path)
                content = convert()
                write_atomically(str(target), lambda file: torch.save(content, file))
    except UserError:
        raise
    except OSError as error:
        raise CacheError(
            f"{target}: cannot be written ({error.strerror or error}); HDETR_D2_CACHE names another folder"
        ) from error
    return target


def converted_path(name: str, sha256: str) -> Path:
    """Where a converted file is kept; another original gives another one."""
    return weights_folder() / "converted" / f"{name}-{sha256[:12]}-{CONVERSION}.pth"


def _convert(entry: Entry, path: Path) -> dict[str, Any]:
    config = config_of(entry)
    model = instantiate(config.model)
    state = converted(entry, path, config, model)
    names, ids = known_classes(entry.num_classes)
    description = ModelDescription.of(config, class_names=names, category_ids=ids, version=__version__)
    return {"model": state, RECORD: Scoring.of_model(model).record(), KEY: description.to_dict()}

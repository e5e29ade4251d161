"""Datasets that a config names by a path alone, in whatever layout they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from hdetr_d2.annotations import DatasetError
from hdetr_d2.annotations.layouts import CocoSplit, prepare_dataset

from .generated.store import default_cache_folder

Node = MutableMapping[str, Any]


def use_paths(dataset: Node, folder: str | os.PathLike[str] | None) -> None:
    """Fill in the files of splits that are given as a ``path``, in place.

    A training set brings its validation split along, unless another one is named; where it has none, a fifth of its
    images becomes one. Splits whose json is known, as in a saved config, stay as they are.

    Args:
        dataset: the node of a config.
        folder: gets what has to be written; None is a folder of the cache that follows from the path.

    Raises:
        UserError: a path is no dataset, or cannot be used.
    """
    train, val = dataset["train"], dataset["val"]
    if _open(train):
        named = any(val.get(key) is not None for key in ("path", "name", "json"))
        prepared = prepare_dataset(train["path"], _folder(train["path"], folder, "train"), need_validation=not named)
        _fill(train, prepared.splits["train"])
        if not named:
            _fill(val, prepared.splits["val"])
    if _open(val):
        splits = prepare_dataset(val["path"], _folder(val["path"], folder, "val"), need_validation=False).splits
        if "val" not in splits and len(splits) > 1:
            raise DatasetError(f"dataset.val={val['path']}: there is no validation split; there is {', '.join(splits)}")
        _fill(val, splits["val"] if "val" in splits else next(iter(splits.values())))


def _open(split: Node) -> bool:
    return split.get("path") is not None and split.get("json") is None


def _folder(path: str, folder: str | os.PathLike[str] | None, split: str) -> Path:
    if folder is None:
        digest = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:12]
        folder = default_cache_folder() / "prepared" / digest
    return Path(folder) if split == "train" else Path(folder) / split


def _fill(split: Node, files: CocoSplit) -> None:
    split["json"], split["images"] = str(files.json.resolve()), str(files.images.resolve())

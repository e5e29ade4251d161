"""Which layout a dataset has, seen from its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hdetr_d2.errors import UserError

LayoutName = Literal["coco", "yolo", "voc"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

SPLIT_WORDS: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What the splits are called in names of files and folders."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


class LayoutError(UserError, ValueError):
    """A dataset that cannot be used as it is; the message names the file, the line or the key, and what to do."""


@dataclass(frozen=True)
class RawSplit:
    """A part of a dataset, as its layout has it.

    Args:
        images: the image files, sorted; of COCO's layout none, since the json names them.
        folder: the folder that names of images are relative to.
        annotations: the json of COCO's layout; of the others None.
    """

    images: tuple[Path, ...]
    folder: Path
    annotations: Path | None = None


@dataclass(frozen=True)
class Layout:
    """A dataset on the disk.

    Args:
        name: of the layout.
        root: its folder.
        splits: the parts that were found, train among them.
        class_names: in the layout's order; empty where annotations name their classes.
    """

    name: LayoutName
    root: Path
    splits: Mapping[SplitName, RawSplit]
    class_names: tuple[str, ...] = field(default=())


def recognise(path: str | os.PathLike[str]) -> Layout:
    """See which layout a dataset has.

    Args:
        path: a folder; a json in COCO's or LVIS's format, whose images are found beside it; or a YOLO ``data.yaml``.

    Raises:
        LayoutError: there is no such path, or it has no known layout.
    """
    from . import coco, voc, yolo

    root = Path(path).expanduser()
    if not root.exists():
        raise LayoutError(f"{root}: there is no such file or folder")
    if root.is_file():
        if root.suffix.lower() in (".yaml", ".yml"):
            return yolo.read_layout(root)
        if root.suffix.lower() == ".json":
            return coco.read_file(root)
        raise LayoutError(f"{root}: is neither a json of annotations nor a data.yaml")
    if not root.is_dir():
        raise LayoutError(f"{root}: is neither a file nor a folder")
    for find in (yolo.find, coco.find, voc.find):
        layout = find(root)
        if layout is not None:
            return layout
    raise LayoutError(
        f"{root}: no known layout of a dataset. Known are COCO (train.json, or train/_annotations.coco.json), YOLO "
        "(data.yaml, images/ and labels/) and Pascal VOC (an .xml for each image)"
    )


def split_of(name: str) -> SplitName | None:
    """Which split the name of a file or folder says; None where it says none."""
    words = "".join(character if character.isalpha() else " " for character in name.lower()).split()
    for split, known in SPLIT_WORDS.items():
        if any(word in known for word in words):
            return split
    return None


def images_below(folder: Path) -> tuple[Path, ...]:
    """All image files of a folder and its folders, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return tuple(sorted(path for path in found if not path.name.startswith(".") and path.is_file()))


def require_train(splits: dict[SplitName, RawSplit], where: Path) -> dict[SplitName, RawSplit]:
    """The splits in order, a lone one as the training split.

    Raises:
        LayoutError: there are several, and none is for training.
    """
    if not splits:
        raise LayoutError(f"{where}: the dataset has no images")
    if "train" not in splits:
        if len(splits) > 1:
            raise LayoutError(f"{where}: has {' and '.join(splits)} but nothing to train on; name a folder train")
        splits = {"train": next(iter(splits.values()))}
    return {split: splits[split] for split in SPLITS if split in splits}

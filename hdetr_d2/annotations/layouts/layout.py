"""What the layouts of datasets have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hdetr_d2.errors import UserError

logger = logging.getLogger(__name__)

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


class UnknownLayoutError(LayoutError):
    """A folder that looks like no dataset, such as one of images alone."""


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


def split_of(name: str) -> SplitName | None:
    """Which split the name of a file or folder says; None where it says none."""
    words = "".join(character if character.isalpha() else " " for character in name.lower()).split()
    for split, known in SPLIT_WORDS.items():
        if any(word in known for word in words):
            return split
    return None


def read_lines(file: Path) -> list[str]:
    """The lines of a list of names, files or boxes.

    Raises:
        LayoutError: it is no text, or cannot be read.
    """
    try:
        if not file.is_file():  # opening a pipe waits for ever
            raise LayoutError(f"{file}: is no regular file")
        return file.read_text(encoding="utf-8-sig").splitlines()  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{file}: cannot be read as text: {error}") from error


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
        only = next(iter(splits))
        logger.warning("%s: has %s alone, which is taken for all that there is", where, only)
        splits = {"train": splits[only]}
    return {split: splits[split] for split in SPLITS if split in splits}

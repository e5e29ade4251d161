"""COCO's and LVIS's layouts: a json for each split, and folders of images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .layout import Layout, LayoutError, RawSplit, SplitName, require_train, split_of

_SAMPLE = 20
_IMAGE_FOLDER = "image_folder"
"""Of a file's "info": where its images are, from the file's own folder. ``data convert`` writes it."""


def find(root: Path) -> Layout | None:
    """The layout of a folder with annotation files in it, in ``annotations/`` or in a folder for each split."""
    splits: dict[SplitName, RawSplit] = {}
    unnamed: list[Path] = []
    for file in _candidates(root):
        split = split_of(file.stem) or split_of(file.parent.name if file.parent != root else "")
        if split is None:
            unnamed.append(file)
        elif split not in splits:
            splits[split] = RawSplit((), _image_folder(file, root, split), file)
    if not splits and len(unnamed) == 1:
        splits["train"] = RawSplit((), _image_folder(unnamed[0], root, None), unnamed[0])
    if not splits:
        if unnamed:
            names = ", ".join(file.name for file in unnamed[:3])
            raise LayoutError(f"{root}: nothing says which of {names} is for training; call one train.json")
        return None
    return Layout("coco", root, require_train(splits, root))


def read_file(file: Path) -> Layout:
    """The layout of one annotation file, with the file of the other split where it lies beside it.

    Raises:
        LayoutError: it is no annotation file, or its images are not found.
    """
    if not _is_annotations(file):
        raise LayoutError(f"{file}: is no annotation file: a json with images, annotations and categories is needed")
    split = split_of(file.stem) or split_of(file.parent.name)
    root = file.parent.parent if file.parent.name.lower() in ("annotations", "train", "labels") else file.parent
    splits: dict[SplitName, RawSplit] = {"train": RawSplit((), _image_folder(file, root, split), file)}
    return Layout("coco", file.parent, splits)


def _candidates(root: Path) -> Iterator[Path]:
    """Annotation files, instances before others, so that captions and keypoints do not stand for boxes."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    files = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    for file in sorted(files, key=lambda file: ("instances" not in file.name, folders.index(file.parent), file.name)):
        if file.is_file() and _is_annotations(file):
            yield file


def _is_annotations(file: Path) -> bool:
    """Whether the file is a json with the three lists; read whole only where its beginning may be one.

    Raises:
        LayoutError: it is named as a split's file, and is no json: without it, another split would take its place.
    """
    try:
        with file.open("rb") as opened:
            if not opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return False
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if split_of(file.stem) is not None:
            raise LayoutError(f"{file}: cannot be read as json: {error}") from error
        return False
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "categories"))


def _image_folder(file: Path, root: Path, split: SplitName | None) -> Path:
    """The folder in which most of a file's images are.

    Raises:
        LayoutError: they are in none that is usual.
    """
    content: Any = json.loads(file.read_bytes())
    names = _image_names(content)
    if not names:
        return file.parent
    said = _said_folder(content, file)
    folders = [*([said] if said is not None else []), *_folders(file, root, split)]
    counts = {folder: sum(_is_there(folder, name) for name in names) for folder in folders}
    best = max(counts, key=lambda folder: counts[folder])
    if not counts[best]:
        beside = f", nor in {said}, where it says that they are" if said is not None else ""
        raise LayoutError(
            f"{file}: its images (such as {names[0]}) are not found below {root}{beside}; put them, or a link to their "
            f"folder, into {root / 'images'}"
        )
    return best


def _is_there(folder: Path, name: str) -> bool:
    """Whether a folder has an image, whose name may have been written on Windows."""
    return os.path.isfile(folder / name) or os.path.isfile(folder / name.replace("\\", "/"))


def with_image_folder(content: Mapping[str, Any], images: Path, *, file: Path) -> dict[str, Any]:
    """A file's content that says where its images are, so that it is enough to name the file.

    Args:
        content: of a json.
        images: their folder.
        file: where the content will be written. A folder below this file's parent is written relative to the file, so
            that both can be moved together; any other by its whole path.
    """
    images, home = images.resolve(), file.parent.resolve()
    near = home.parent in (images, *images.parents)
    info = content.get("info")
    folder = Path(os.path.relpath(images, home)).as_posix() if near else str(images)
    return {**content, "info": {**(info if isinstance(info, dict) else {}), _IMAGE_FOLDER: folder}}


def _said_folder(content: Any, file: Path) -> Path | None:
    info = content.get("info")
    said = info.get(_IMAGE_FOLDER) if isinstance(info, dict) else None
    return file.parent / said if isinstance(said, str) and said and "\0" not in said else None


def _image_names(content: Any) -> list[str]:
    images = [image for image in content["images"] if isinstance(image, dict)]
    step = max(1, len(images) // _SAMPLE)
    names = []
    for image in images[::step][:_SAMPLE]:
        name = image.get("file_name")
        if not isinstance(name, str):
            url = image.get("coco_url")
            name = "/".join(url.split("/")[-2:]) if isinstance(url, str) else None
        if name:
            names.append(name)
    return names


def _folders(file: Path, root: Path, split: SplitName | None) -> Iterable[Path]:
    top = {file.parent: None, root: None}
    for folder in (file.parent, root):
        top[folder / "images"] = None
        for inner in (folder, folder / "images"):
            if inner.is_dir():
                inners = sorted(path for path in inner.iterdir() if path.is_dir())
                named = [path for path in inners if split is not None and split_of(path.name) == split]
                top.update(dict.fromkeys([*named, *(path / "images" for path in named), *inners]))
    return top

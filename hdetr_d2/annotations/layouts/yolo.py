"""YOLO's layout: ``data.yaml``, and for each image a text file of lines ``class x y width height``."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .layout import (
    SPLIT_WORDS,
    SPLITS,
    Layout,
    LayoutError,
    RawSplit,
    SplitName,
    images_below,
    read_lines,
    require_train,
    split_of,
)
from .records import RawBox

logger = logging.getLogger(__name__)

_CONFIG_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_MARGIN = 1e-3  # labelling tools round


def find(root: Path) -> Layout | None:
    """The layout of a folder with a ``data.yaml``, or with ``labels/`` beside ``images/`` and a list of names."""
    for name in _CONFIG_NAMES:
        if (root / name).is_file():
            return read_layout(root / name)
    others = [file for file in sorted(root.glob("*.y*ml")) if file.is_file() and _lists_names(file)]
    if len(others) == 1:
        return read_layout(others[0])
    lists = [folder / name for folder in _places(root) for name in _NAME_LISTS if (folder / name).is_file()]
    splits = _labelled(root) if lists else {}
    if not splits:
        return None
    names = tuple(line.strip() for line in read_lines(lists[0]) if line.strip())
    return Layout("yolo", root, require_train(splits, root), names)


def explain(root: Path) -> str:
    """What a folder lacks that has YOLO's labels and is no dataset yet; "" where there are none."""
    if not _labelled(root):
        return ""
    return f"has YOLO's labels, but nothing names the classes; write {root / 'classes.txt'}, one name a line, in order"


def _places(root: Path) -> list[Path]:
    """Where tools put the list of names."""
    return [root, root / "labels", *sorted(path for path in root.iterdir() if path.is_dir() and path.name != "labels")]


def _labelled(root: Path) -> dict[SplitName, RawSplit]:
    """Images by their split, if any has labels: those below ``images/``, or all where there is no such folder."""
    top = root / "images" if (root / "images").is_dir() else root
    splits: dict[SplitName, RawSplit] = {}
    for folder in sorted(path for path in top.iterdir() if path.is_dir()):
        split = split_of(folder.name)
        if split is not None and split not in splits and (images := images_below(folder)):
            splits[split] = RawSplit(images, folder)
    if not splits and (images := images_below(top)):
        splits["train"] = RawSplit(images, top)
    if any(_has_labels(image) for split in splits.values() for image in split.images):
        return splits
    return {}


def _has_labels(image: Path) -> bool:
    """Whether the file of its labels is there, and is one."""
    file = label_file(image)
    try:
        words = file.read_text(encoding="utf-8-sig").split() if file.is_file() else []
    except (OSError, UnicodeDecodeError):
        return False
    try:
        return len(words) >= 5 and bool([float(word) for word in words[:5]])
    except ValueError:
        return False


def _lists_names(file: Path) -> bool:
    """Whether it may be a ``data.yaml`` of another name; a file that is no YAML is something else."""
    try:
        return bool(_names_of(_read_yaml(file), file, needed=False))
    except LayoutError:
        return False


def read_layout(file: Path) -> Layout:
    """What a ``data.yaml`` says.

    Raises:
        LayoutError: a key is missing or wrong, or a folder is not there.
    """
    content = _read_yaml(file)
    if not isinstance(content, dict):
        raise LayoutError(f"{file}: is no data.yaml: it must have train, val and names")
    names = _names_of(content, file, needed=True)
    splits: dict[SplitName, RawSplit] = {}
    for split in SPLITS:
        values = [content[word] for word in SPLIT_WORDS[split] if content.get(word)]
        if values:
            try:
                images = tuple(_images_of(values[0], file, content.get("path"), split))
            except LayoutError as error:
                if split != "test":  # exports name one whether they have it or not, and nothing is done with it
                    raise
                logger.warning("%s; it is left out", error)
                continue
            if images:
                splits[split] = RawSplit(images, _common_folder(images))
            elif split != "test":
                raise LayoutError(f"{file}: {split}: {values[0]} holds no images")
    if not splits:
        raise LayoutError(f"{file}: says neither train nor val")
    return Layout("yolo", file.parent, require_train(splits, file), names)


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no UTF-8, no such date
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise LayoutError(f"{file}{line}: cannot be read as YAML: {reason}") from error


def _names_of(content: Any, file: Path, *, needed: bool) -> tuple[str, ...]:
    """The class names, from a list or a mapping of numbers to names."""
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise LayoutError(f"{file}: names must be numbered from 0 without gaps, not {list(names)[:5]}")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        if needed:
            raise LayoutError(f"{file}: names is missing: give the class names, as a list")
        return ()
    if needed and isinstance(content.get("nc"), int) and content["nc"] != len(names):
        raise LayoutError(f"{file}: nc is {content['nc']}, but there are {len(names)} names")
    for index, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise LayoutError(
                f'{file}: names: number {index} is {name!r}, not a name; write it as text, with "" around it'
            )
    return tuple(str(name) for name in names)


def _images_of(value: Any, file: Path, base: Any, split: str) -> Iterator[Path]:
    """The images of a split: of a folder, of a list of files, or of several of these."""
    if isinstance(value, list):
        for inner in value:
            yield from _images_of(inner, file, base, split)
        return
    if not isinstance(value, str):
        raise LayoutError(f"{file}: {split}: must be a folder or a list of folders, not {value!r}")
    path = _resolve(value, file, base, split)
    if path.is_dir():
        yield from images_below(path)
        return
    for line in read_lines(path):
        if line.strip():
            yield _resolve(line.strip(), file, base, split, also=path.parent)


def _resolve(value: str, file: Path, base: Any, split: str, also: Path | None = None) -> Path:
    """A path of a data.yaml: below ``path``, beside the file, or, as some tools write it, one folder too high."""
    given = Path(os.path.expanduser(value))
    roots = [file.parent]
    if isinstance(base, str) and base:
        roots = [Path(os.path.expanduser(base)), file.parent / base, file.parent]
    if also is not None:
        roots.append(also)
    lower = Path(*[part for part in given.parts if part not in ("..", ".")]) if not given.is_absolute() else given
    for candidate in (given, *(root / given for root in roots), *(root / lower for root in roots)):
        if os.path.exists(candidate):  # Path.exists raises on a name that is too long
            return candidate
    raise LayoutError(f"{file}: {split}: {value} does not exist, neither as it is nor below {file.parent}")


def _common_folder(images: tuple[Path, ...]) -> Path:
    parents = [image.parent for image in images]
    first = parents[0]
    while any(first != parent and first not in parent.parents for parent in parents):
        first = first.parent
    return first


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder ``images`` of its path is ``labels``, or beside it."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].lower() == "images":
            parts[index] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def read_boxes(
    image: Path, *, width: int, height: int, num_classes: int, faults: list[str] | None = None
) -> list[RawBox]:
    """The objects of an image; none where it has no label file.

    Lines of more than five numbers are outlines (class, then x and y of each point), whose box is taken.

    Args:
        image: the image file.
        width, height: of it, in pixels.
        num_classes: classes are 0 to this minus one.
        faults: takes what is wrong with a line, which is then left out; None raises.

    Raises:
        LayoutError: a line is wrong; the message names file and line.
    """
    file = label_file(image)
    if not file.is_file():
        return []
    boxes = []
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                label, edges = _parse(line, where, num_classes)
            except LayoutError as error:
                if faults is None:
                    raise
                faults.append(str(error))
                continue
            x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in edges)
            beyond = (abs(edge - inside) for edge, inside in zip(edges, (x0, y0, x1, y1)))
            cut = any(part * side > 1 for part, side in zip(beyond, (width, height) * 2))
            xywh = (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)
            boxes.append(RawBox(label, xywh, where, cut=cut))
    return boxes


Edges = tuple[float, float, float, float]


def _parse(line: str, where: str, num_classes: int) -> tuple[int, Edges]:
    """Class, and left, top, right and bottom in parts of the image, some of which is inside of it."""
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise LayoutError(f'{where}: "{line.strip()[:60]}" is not a line of numbers') from error
    if not all(math.isfinite(value) for value in values):
        raise LayoutError(f"{where}: a number is not finite")
    outline = len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not outline:
        raise LayoutError(
            f"{where}: has {len(values)} numbers; it must be class, x, y, width, height, or class and an outline"
        )
    label = int(values[0])
    if label != values[0] or not 0 <= label < num_classes:
        hint = "; classes count from 0" if label == values[0] == num_classes else ""
        raise LayoutError(f"{where}: class {words[0]} is not in 0 to {num_classes - 1}{hint}")
    if any(value < -_MARGIN or value > 1 + _MARGIN for value in values[1:]):
        raise LayoutError(f"{where}: numbers must be parts of the image, in [0, 1]; in pixels they are of no use here")
    if outline:
        xs, ys = values[1::2], values[2::2]
        edges = (min(xs), min(ys), max(xs), max(ys))
    else:
        x, y, width, height = values[1:]
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
    if right <= left or bottom <= top:
        raise LayoutError(f"{where}: the box has no area")
    return label, edges

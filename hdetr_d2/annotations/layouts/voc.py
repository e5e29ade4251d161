"""Pascal VOC's layout: an ``.xml`` for each image, beside it or in ``Annotations/``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from .layout import Layout, LayoutError, RawSplit, SplitName, images_below, read_lines, require_train, split_of
from .records import RawBox

_IMAGES = "JPEGImages"
_ANNOTATIONS = "Annotations"
_SETS = Path("ImageSets") / "Main"


def find(root: Path) -> Layout | None:
    """The layout of a folder as the challenge has it, with a folder for each split, or with all files together."""
    for folder in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
        if (folder / _SETS).is_dir() and (folder / _ANNOTATIONS).is_dir():
            return Layout("voc", folder, require_train(_challenge(folder), folder))
    splits: dict[SplitName, RawSplit] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split = split_of(folder.name)
        images = _annotated(folder) if split is not None else ()
        if split is not None and images:
            splits[split] = RawSplit(images, folder)
    if not splits and (images := _annotated(root)):
        splits["train"] = RawSplit(images, root)
    return Layout("voc", root, require_train(splits, root)) if splits else None


def _challenge(folder: Path) -> dict[SplitName, RawSplit]:
    """The splits of ``ImageSets/Main``; ``trainval`` is for training where there is a test set and nothing else."""
    images = {image.stem: image for image in images_below(folder / _IMAGES)}
    lists = {file.stem: file for file in (folder / _SETS).glob("*.txt")}
    chosen: dict[SplitName, Path] = {}
    if "train" in lists:
        chosen["train"] = lists["train"]
    elif "trainval" in lists:
        chosen["train"] = lists["trainval"]
    if "val" in lists:
        chosen["val"] = lists["val"]
    if "test" in lists:
        chosen["test"] = lists["test"]
    splits: dict[SplitName, RawSplit] = {}
    for split, file in chosen.items():
        found = []
        for number, line in enumerate(read_lines(file), start=1):
            words = line.split()
            if not words or words[1:] == ["-1"]:
                continue
            if words[0] not in images:
                raise LayoutError(f"{file}, line {number}: there is no image {words[0]} in {folder / _IMAGES}")
            found.append(images[words[0]])
        if found:
            splits[split] = RawSplit(tuple(found), folder / _IMAGES)
    if not splits and images:
        splits["train"] = RawSplit(tuple(images.values()), folder / _IMAGES)
    return splits


def _annotated(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, if some of them have an annotation file."""
    if not any(folder.rglob("*.xml")):
        return ()
    images = images_below(folder)
    return images if any(annotation_file(image).is_file() for image in images) else ()


def annotation_file(image: Path) -> Path:
    """Where the annotations of an image are: beside it, or in ``Annotations/`` beside or above its folder."""
    beside = image.with_suffix(".xml")
    for folder in (image.parent, image.parent.parent):
        for name in (_ANNOTATIONS, _ANNOTATIONS.lower()):
            candidate = folder / name / beside.name
            if not beside.is_file() and candidate.is_file():
                return candidate
    return beside


def read_boxes(image: Path, *, width: int, height: int, faults: list[str] | None = None) -> list[RawBox]:
    """The objects of an image, in pixels as the file counts them (see `first_pixel`); none where there is no file.

    Args:
        image: the image file.
        width, height: of it, in pixels.
        faults: takes what is wrong with an object, which is then left out; None raises.

    Raises:
        LayoutError: the file cannot be read, is of an image of another size, or an object is wrong.
    """
    file = annotation_file(image)
    if not file.is_file():
        return []
    tree = _parse(file)
    _check_size(tree, file, width, height)
    boxes = []
    for number, item in enumerate(tree.iter("object"), start=1):
        try:
            boxes.append(_object(item, f"{file}, object {number}"))
        except LayoutError as error:
            if faults is None:
                raise
            faults.append(str(error))
    return boxes


def _object(item: ElementTree.Element, where: str) -> RawBox:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise LayoutError(f"{where}: has no name")
    left, top, right, bottom = (_number(item, key, where) for key in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise _no_area(f"{where} ({name})", left, top, right, bottom)
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    return RawBox(name, (left, top, right - left, bottom - top), where, difficult)


def _parse(file: Path) -> ElementTree.Element:
    try:
        text = file.read_bytes()
        if b"<!ENTITY" in text:  # entities can make a small file endless
            raise LayoutError(f"{file}: defines entities, which no annotation file needs; it is not read")
        return ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        raise LayoutError(f"{file}: cannot be read as XML: {error}") from error


def _check_size(tree: ElementTree.Element, file: Path, width: int, height: int) -> None:
    said = [tree.findtext(f"size/{key}") for key in ("width", "height")]
    if None in said:
        return
    try:
        numbers = [int(float(each or "0")) for each in said]
    except ValueError as error:
        raise LayoutError(f"{file}: its size is no number: {said}") from error
    if numbers != [0, 0] and numbers != [width, height]:
        raise LayoutError(f"{file}: says {numbers[0]} x {numbers[1]} pixels, the image has {width} x {height}")


def _number(item: ElementTree.Element, key: str, where: str) -> float:
    text = item.findtext(f"bndbox/{key}")
    try:
        value = float(text or "")
    except ValueError as error:
        raise LayoutError(f"{where}: {key} is {text!r}, not a number") from error
    if not math.isfinite(value):
        raise LayoutError(f"{where}: {key} is {text!r}")
    return value


def first_pixel(boxes: Iterable[RawBox]) -> int:
    """The number that a dataset's files give to the first pixel of a row: 1 or 0.

    The challenge counts from 1, and the last pixel is inside: ``xmin=1, xmax=640`` is the whole of a row of 640. Many
    tools write edges from 0 into the same files, 0 to 640. Files do not say which; a box that begins below 1 does.

    Args:
        boxes: all of the dataset. One split may have no box at the border where another has.
    """
    return 1 if all(box.xywh[0] >= 1 and box.xywh[1] >= 1 for box in boxes) else 0


def between_edges(box: RawBox, first: int) -> RawBox:
    """A box of `read_boxes` as its edges, from 0 on.

    Args:
        box: in pixels as the file counts them.
        first: of `first_pixel`.

    Raises:
        LayoutError: it has no area.
    """
    left, top, width, height = box.xywh
    moved = (left - first, top - first, width + first, height + first)
    if min(moved[2:]) <= 0:
        raise _no_area(f"{box.where} ({box.label})", left, top, left + width, top + height)
    return replace(box, xywh=moved)


def _no_area(where: str, left: float, top: float, right: float, bottom: float) -> LayoutError:
    return LayoutError(f"{where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has no area")

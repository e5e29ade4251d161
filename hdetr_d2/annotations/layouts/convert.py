"""Every layout as COCO json, with ids that do not change from one time to the next."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hdetr_d2.annotations.reading import read_annotation_file
from hdetr_d2.errors import UserError
from hdetr_d2.images import opened_image
from hdetr_d2.output import write_atomically
from hdetr_d2.progress import progress

from ..errors import UnusableImageError
from . import voc, yolo
from .coco import with_image_folder
from .layout import Layout, LayoutError, RawSplit, SplitName
from .recognition import recognise
from .records import RawBox
from .umbrella import umbrella_categories

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
"""Of the images, where a dataset has no validation split."""
DECIMALS = 6
"""Of a pixel, in what is written; more is rounding of YOLO's parts of an image."""


@dataclass(frozen=True)
class CocoSplit:
    """A split as training and evaluation take it.

    Args:
        json: the annotation file.
        images: the folder of its images.
        source: what the file was made of: the user's own json, or a folder of another layout; None where it is the
            user's own itself.
    """

    json: Path
    images: Path
    source: Path | None = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """What is wrong with the file is told of what it was made of, which the user can mend; a copy may be gone.

        Raises:
            UserError: what is raised inside, in these words.
        """
        try:
            yield
        except UserError as error:
            if self.source is not None:
                said = [part for part in error.args if isinstance(part, str)]
                if len(said) == len(error.args):
                    error.args = tuple(part.replace(str(self.json), str(self.source)) for part in said)
            raise


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset as training and evaluation take it.

    Args:
        layout: what it was.
        splits: as COCO json.
        drawn: whether validation images were taken out of the training split, because there were none.
    """

    layout: Layout
    splits: Mapping[SplitName, CocoSplit]
    drawn: bool = False


def prepare_dataset(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], *, need_validation: bool = True
) -> PreparedDataset:
    """Bring a dataset of any known layout into COCO json.

    Args:
        path: as `recognise` takes it. Splits that are COCO json already are used where they are, unless one category
            is no class (see `umbrella`).
        folder: gets ``train.json`` and so on, where they must be written.
        need_validation: take a fifth of the training images, by their names, where there is no validation split.

    Raises:
        LayoutError, DatasetError: the dataset cannot be read; the message names file and line.
    """
    layout = recognise(path)
    target = Path(folder)
    if layout.name == "coco":
        splits = _without_umbrella(
            {
                split: CocoSplit(raw.annotations, raw.folder)
                for split, raw in layout.splits.items()
                if raw.annotations is not None
            },
            target,
        )
    else:
        splits = _convert(layout, target)
    drawn = need_validation and "val" not in splits
    if drawn:
        splits = _draw_validation(splits, target)
    return PreparedDataset(layout, splits, drawn)


def _without_umbrella(splits: dict[SplitName, CocoSplit], target: Path) -> dict[SplitName, CocoSplit]:
    """COCO's splits, copied without the category that stands for the others alone, where there is one."""
    ids = umbrella_categories(part.json for part in splits.values())
    if not ids:
        return splits
    result: dict[SplitName, CocoSplit] = {}
    for split, part in splits.items():
        content = json.loads(part.json.read_bytes())
        content["categories"] = [each for each in content["categories"] if each["id"] not in ids]
        _write(target / f"{split}.json", content)
        result[split] = CocoSplit(target / f"{split}.json", part.images, part.json)
    return result


def _convert(layout: Layout, target: Path) -> dict[SplitName, CocoSplit]:
    boxes = {split: _read(layout, raw, split) for split, raw in layout.splits.items()}
    names: Sequence[str] = layout.class_names
    if layout.name == "voc":
        everything = [box for records in boxes.values() for _, _, of_image in records for box in of_image]
        names = sorted({str(box.label) for box in everything})
        first = voc.first_pixel(everything)
        logger.info("%s: the first pixel of a row is %d", layout.root, first)
        boxes = {
            split: [(image, size, [voc.between_edges(box, first) for box in found]) for image, size, found in records]
            for split, records in boxes.items()
        }
    if not names:
        raise LayoutError(f"{layout.root}: the dataset has no object, and so no class")
    splits: dict[SplitName, CocoSplit] = {}
    for split, raw in layout.splits.items():
        file = target / f"{split}.json"
        _write(file, _coco(boxes[split], raw.folder, names))
        splits[split] = CocoSplit(file, raw.folder, layout.root)
    return splits


Record = tuple[Path, tuple[int, int], list[RawBox]]


def _read(layout: Layout, raw: RawSplit, split: SplitName) -> list[Record]:
    records = []
    for image in progress(raw.images, what=f"reading {split}", unit="image", total=len(raw.images)):
        width, height = _size(image)
        if layout.name == "yolo":
            boxes = yolo.read_boxes(image, width=width, height=height, num_classes=len(layout.class_names))
        else:
            boxes = voc.read_boxes(image, width=width, height=height)
        records.append((image, (width, height), boxes))
    cut = [box.where for _, _, boxes in records for box in boxes if box.cut]
    if cut:
        logger.warning("%s: %d boxes reach beyond their image and are cut at its edge: %s", split, len(cut), cut[0])
    if not any(boxes for _, _, boxes in records):
        place = yolo.label_file(raw.images[0]).parent if layout.name == "yolo" else raw.folder
        raise LayoutError(f"{layout.root}: no image of {split} has an object; labels are looked for in {place}")
    return records


def _size(image: Path) -> tuple[int, int]:
    """Width and height as the pixels are stored, from the header alone."""
    try:
        with opened_image(image) as opened:
            return opened.size
    except UnusableImageError as error:
        raise LayoutError(f"{error}; remove it, or put a sound image in its place") from error


def _coco(records: Sequence[Record], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Images are numbered from 1 in the order of their names; category ids are the positions of the names."""
    number_of = {name: index for index, name in enumerate(names)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (image, (width, height), boxes) in enumerate(sorted(records, key=lambda record: record[0]), start=1):
        name = image.relative_to(folder).as_posix()
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for box in boxes:
            left, top, right, bottom = _clipped(box, width, height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": box.label if isinstance(box.label, int) else number_of[box.label],
                    "bbox": [round(x, DECIMALS) for x in (left, top, right - left, bottom - top)],
                    "area": round((right - left) * (bottom - top), DECIMALS),
                    "iscrowd": int(box.difficult),
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _clipped(box: RawBox, width: int, height: int) -> tuple[float, float, float, float]:
    """Edges inside the image; one pixel outside is rounding, more is an error."""
    left, top, w, h = box.xywh
    right, bottom = left + w, top + h
    if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
        raise LayoutError(
            f"{box.where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is outside the image of "
            f"{width} x {height} pixels"
        )
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if min(round(right - left, DECIMALS), round(bottom - top, DECIMALS)) <= 0:
        raise LayoutError(f"{box.where}: the box has no area, to {DECIMALS} decimals of a pixel; remove it")
    return left, top, right, bottom


def write_with_image_folder(split: CocoSplit, file: Path) -> None:
    """Write a split's annotations, which then say where its images are.

    Args:
        split: of `prepare_dataset`.
        file: to write; may be the split's own.
    """
    content = json.loads(split.json.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    _write(file, with_image_folder(content, split.images, file=file))


def _draw_validation(splits: Mapping[SplitName, CocoSplit], target: Path) -> dict[SplitName, CocoSplit]:
    """Take validation images out of the training split; which ones follows from their names alone."""
    train = splits["train"]
    read_annotation_file(train.json)  # which tells what is wrong with the lists that are divided here
    content = json.loads(train.json.read_bytes())
    images = content["images"]
    if len(images) < 2:
        raise LayoutError(f"{train.json}: one image cannot be trained on and validated with; add images")
    ranked = sorted(images, key=lambda image: hashlib.sha256(str(image.get("file_name")).encode()).hexdigest())
    chosen = {image["id"] for image in ranked[: max(1, round(VALIDATION_SHARE * len(ranked)))]}
    result = dict(splits)
    for split, wanted in (("train", False), ("val", True)):
        part = {
            **content,
            "images": [image for image in images if (image["id"] in chosen) is wanted],
            "annotations": [item for item in content["annotations"] if (item["image_id"] in chosen) is wanted],
        }
        file = target / f"{split}.json"
        _write(file, part)
        result["train" if split == "train" else "val"] = CocoSplit(file, train.images, train.source or train.json)
    logger.info("there is no validation split: %d of %d images are kept for it", len(chosen), len(images))
    return result


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = json.dumps(content).encode()

    def write(file: IO[bytes]) -> None:
        file.write(encoded)

    write_atomically(os.fspath(path), write)

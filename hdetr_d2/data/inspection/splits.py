"""A split of any layout in one form, wrong rows set aside instead of refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import (
    DatasetError,
    UnusableImageError,
    annotation_faults,
    check_annotations,
    read_annotation_file,
)
from hdetr_d2.annotations.layouts import Layout, LayoutError, RawSplit, voc, yolo
from hdetr_d2.annotations.layouts.layout import images_below
from hdetr_d2.annotations.layouts.records import RawBox
from hdetr_d2.annotations.layouts.umbrella import umbrella_categories
from hdetr_d2.data.image_files import locate_images
from hdetr_d2.images import opened_image
from hdetr_d2.progress import progress

from .findings import KEPT, Finding, found


@dataclass(frozen=True, kw_only=True)
class InspectedSplit:
    """A split as it is inspected.

    Args:
        name: train, val or test.
        images: (N) the files; some may not exist.
        exists: (N,) bool.
        sizes: (N, 2) width and height in pixels as annotations say, of layouts that do not as the file has it; 0 where
            nobody knows.
        says_size: whether ``sizes`` is what annotations say, which the files have to have.
        class_names: of the classes.
        declared_groups: LVIS's group of each class where the file says it, else None.
        box_images: (M,) int64, the image of each usable box.
        box_classes: (M,) int64.
        boxes: (M, 4) float64 XYXY in pixels.
        findings: what reading found.
    """

    name: str
    images: tuple[Path, ...]
    exists: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    says_size: bool
    class_names: tuple[str, ...]
    declared_groups: tuple[str, ...] | None
    box_images: NDArray[np.int64]
    box_classes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    findings: tuple[Finding, ...]


def read_splits(layout: Layout) -> list[InspectedSplit]:
    """Every split of a dataset.

    Raises:
        UserError: a file is wrong as a whole.
    """
    if layout.name == "coco":
        files = [raw.annotations for raw in layout.splits.values() if raw.annotations is not None]
        umbrella = umbrella_categories(files)
        return [_coco(name, raw, umbrella) for name, raw in layout.splits.items()]
    loose = {name: _loose(layout, name, raw) for name, raw in layout.splits.items()}
    names = layout.class_names
    if layout.name == "voc":
        everything = [box for split in loose.values() for of_image in split.boxes for box in of_image]
        names = tuple(sorted({str(box.label) for box in everything}))
        loose = {name: _between_edges(split, voc.first_pixel(everything)) for name, split in loose.items()}
    return [_typed(layout, name, layout.splits[name], loose[name], names) for name in layout.splits]


def _coco(name: str, raw: RawSplit, umbrella: frozenset[int]) -> InspectedSplit:
    """A split of COCO's or LVIS's layout, without the categories that are no classes (see `umbrella_categories`)."""
    assert raw.annotations is not None
    table = read_annotation_file(raw.annotations)
    faults = annotation_faults(table, keep=KEPT)
    checked = check_annotations(table, invalid="drop")
    nameless = [str(identity) for identity, names in zip(table.image_ids, table.image_names) if not names]
    if nameless:
        raise DatasetError(f'{table.path}: image {nameless[0]} has neither "file_name" nor "coco_url"')
    paths, exists = locate_images(table, str(raw.folder))
    categories = table.categories
    kept = [row for row, identity in enumerate(categories.ids) if identity not in umbrella]
    groups = categories.frequencies
    findings: list[Finding] = []
    if faults.bad.any():
        examples = (
            f"{table.path}: annotation {table.annotation_ids[row]} (image {table.annotation_image_ids[row]}) {text}"
            for row, text in sorted(faults.described.items())
        )
        what = f"annotations are wrong ({faults.summary()}); training refuses them unless dataset.invalid=drop"
        wrong = found("wrong-rows", "hurts", name, what, examples)
        findings += [replace(each, count=int(faults.bad.sum())) for each in wrong]
    return InspectedSplit(
        name=name,
        images=tuple(map(Path, paths)),
        exists=exists,
        sizes=np.nan_to_num(table.image_sizes[:, ::-1]).astype(np.int64),
        says_size=True,
        class_names=tuple(categories.names[row] for row in kept),
        declared_groups=None if groups is None else tuple(groups[row] for row in kept),
        box_images=checked.image_rows,
        box_classes=np.searchsorted(kept, checked.classes),
        boxes=checked.boxes,
        findings=tuple(findings),
    )


@dataclass(frozen=True)
class _Loose:
    sizes: list[tuple[int, int]]
    boxes: list[list[RawBox]]
    wrong: list[str]


def _loose(layout: Layout, name: str, raw: RawSplit) -> _Loose:
    """The boxes of YOLO's or VOC's files, and every line or object that is wrong."""
    loose = _Loose([], [], [])
    for image in progress(raw.images, what=f"reading {name}", unit="image", total=len(raw.images)):
        size = _size(image)
        loose.sizes.append(size)
        width, height = size if size != (0, 0) else (1, 1)
        boxes: list[RawBox] = []
        try:
            if layout.name == "yolo":
                count = len(layout.class_names)
                boxes = yolo.read_boxes(image, width=width, height=height, num_classes=count, faults=loose.wrong)
            elif size != (0, 0):
                boxes = voc.read_boxes(image, width=width, height=height, faults=loose.wrong)
        except LayoutError as error:
            loose.wrong.append(str(error))
        loose.boxes.append(boxes)
    return loose


def _between_edges(loose: _Loose, first: int) -> _Loose:
    """VOC's boxes from 0 on; those without area are wrong."""
    boxes: list[list[RawBox]] = []
    wrong = list(loose.wrong)
    for of_image in loose.boxes:
        boxes.append([])
        for box in of_image:
            try:
                boxes[-1].append(voc.between_edges(box, first))
            except LayoutError as error:
                wrong.append(str(error))
    return _Loose(loose.sizes, boxes, wrong)


def _size(image: Path) -> tuple[int, int]:
    try:
        with opened_image(image) as opened:
            return opened.size
    except UnusableImageError:  # the look at the pixels says why
        return 0, 0


def _typed(layout: Layout, name: str, raw: RawSplit, loose: _Loose, names: Sequence[str]) -> InspectedSplit:
    number_of = {label: index for index, label in enumerate(names)}
    images, classes, boxes, outside = [], [], [], []
    for row, (size, of_image) in enumerate(zip(loose.sizes, loose.boxes)):
        for box in of_image:
            left, top, width, height = box.xywh
            corners = np.array([left, top, left + width, top + height])
            limits = np.array([*size, *size], dtype=np.float64)
            if (corners < -1).any() or (corners > limits + 1).any():
                edges = f"({corners[0]:g}, {corners[1]:g}) to ({corners[2]:g}, {corners[3]:g})"
                outside.append(f"{box.where}: from {edges}, in an image of {size[0]} x {size[1]} pixels")
                continue
            if not box.difficult:
                images.append(row)
                classes.append(box.label if isinstance(box.label, int) else number_of[box.label])
                boxes.append(corners.clip(0, limits))
    findings = found("wrong-rows", "hurts", name, "rows are wrong, and training refuses the dataset", loose.wrong)
    findings += found("outside", "hurts", name, "boxes are outside their image", outside)
    cut = [box.where for of_image in loose.boxes for box in of_image if box.cut]
    findings += found("cut", "note", name, "boxes reach beyond their image and are cut at its edge", cut)
    findings += found(
        "annotations-without-image",
        "hurts",
        name,
        "annotation files have no image of their name",
        map(str, _orphans(layout, raw)),
    )
    return InspectedSplit(
        name=name,
        images=raw.images,
        exists=np.ones(len(raw.images), dtype=bool),
        sizes=np.array(loose.sizes, dtype=np.int64).reshape(-1, 2),
        says_size=False,
        class_names=tuple(names),
        declared_groups=None,
        box_images=np.array(images, dtype=np.int64),
        box_classes=np.array(classes, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        findings=tuple(findings),
    )


def _orphans(layout: Layout, raw: RawSplit) -> list[Path]:
    """Annotation files in the folders of this split's annotations that belong to no image, of any split."""
    locate: Callable[[Path], Path] = yolo.label_file if layout.name == "yolo" else voc.annotation_file
    suffix = ".txt" if layout.name == "yolo" else ".xml"
    known = {locate(image).resolve() for split in layout.splits.values() for image in split.images}
    beside = {image.parent.resolve() for image in raw.images}
    folders = {locate(image).parent.resolve() for image in raw.images}
    if layout.name == "yolo":  # lists of classes and images lie beside images, never among labels
        folders -= beside
    everywhere = set() if layout.name == "yolo" else {path.stem for path in images_below(raw.folder)}
    return sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.glob(f"*{suffix}")
        if path.resolve() not in known and path.stem not in everywhere and path.name != "classes.txt"
    )

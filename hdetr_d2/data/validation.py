"""Finding what is wrong with annotations and images, before training does.

Tolerances, so that COCO and LVIS load as they are published: a box may exceed its image by up to ``BORDER_TOLERANCE``
pixels and is clipped (COCO's do by less than one; 1-based coordinates give one); boxes of zero width or height are
left out with a warning while they are at most one in 10,000 (COCO train2017 has two among 860,001). Everything else
is refused or dropped.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .annotation_file import AnnotationFile
from .errors import DatasetError, UnusableImageError

BORDER_TOLERANCE = 2.0
ZERO_SIZE_TOLERANCE = 1e-4

_EXIF_ORIENTATION = 0x0112
_SWAPPED_SIDES = (5, 6, 7, 8)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedAnnotations:
    """The usable annotations of a file.

    Attributes:
        rows: (K,) int64, their rows in the file's columns.
        image_rows: (K,) int64, the row of the image of each.
        classes: (K,) int64, contiguous class ids.
        boxes: (K, 4) float64 XYXY in pixels, inside the image.
    """

    rows: np.ndarray
    image_rows: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray


class _Faults:
    """Which rows are faulty and why; the first fault found for a row counts."""

    def __init__(self, count: int) -> None:
        self.kind: list[str | None] = [None] * count
        self.texts: dict[int, str] = {}
        self.bad = np.zeros(count, dtype=bool)

    def add(self, kind: str, faulty: np.ndarray, describe: Callable[[int], str]) -> None:
        for row in np.flatnonzero(faulty & ~self.bad):
            self.kind[row] = kind
            self.texts[int(row)] = describe(int(row))
        self.bad |= faulty

    def summary(self) -> str:
        counts = Counter(kind for kind in self.kind if kind is not None)
        return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _positions(sorted_by_id: np.ndarray, order: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted id its row, or -1."""
    if not len(sorted_by_id):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.clip(np.searchsorted(sorted_by_id, wanted), 0, len(sorted_by_id) - 1)
    return np.where(sorted_by_id[place] == wanted, order[place], -1)


def check_annotations(table: AnnotationFile, *, invalid: str = "error") -> CheckedAnnotations:
    """Checks every annotation once: known image and category, unique id, a finite box with a size, inside its image.

    Args:
        table: the file.
        invalid: "error": refuse the file and name its first fault. "drop": leave faulty annotations out and log how
            many of which kind.

    Raises:
        DatasetError: with ``invalid="error"``, for the first faulty annotation.
    """
    order = np.argsort(table.image_ids)
    image_rows = _positions(table.image_ids[order], order, table.annotation_image_ids)
    category_ids = np.asarray(table.categories.ids, dtype=np.int64)
    classes = _positions(category_ids, np.arange(len(category_ids)), table.annotation_category_ids)
    boxes = table.annotation_boxes
    faults = _Faults(len(boxes))

    def box_text(row: int) -> str:
        return str([round(float(v), 2) for v in boxes[row]])

    faults.add("of unknown images", image_rows < 0, lambda row: "belongs to an image that the file does not list")
    faults.add(
        "of unknown categories",
        classes < 0,
        lambda row: f"has category_id {table.annotation_category_ids[row]}, which the file's categories do not list",
    )
    _, first = np.unique(table.annotation_ids, return_index=True)
    repeated = np.ones(len(boxes), dtype=bool)
    repeated[first] = False
    faults.add("with an id used before", repeated, lambda row: "has an id that an annotation before it has too")
    faults.add(
        "without four finite numbers as box", ~np.isfinite(boxes).all(axis=1), lambda row: f"has bbox {box_text(row)}"
    )
    for side, name in ((2, "width"), (3, "height")):
        faults.add(f"with negative {name}", boxes[:, side] < 0, lambda row, s=side, n=name: f"has {n} {boxes[row, s]}")  # type: ignore[misc]

    zero = ((boxes[:, 2] == 0) | (boxes[:, 3] == 0)) & ~faults.bad
    tolerated = zero & (zero.sum() <= ZERO_SIZE_TOLERANCE * len(boxes))
    if tolerated.any():
        logger.warning("%s: left out %d boxes of zero width or height", table.path, tolerated.sum())
    faults.add("of zero size", zero & ~tolerated, lambda row: f"has a box of zero size, {box_text(row)}")

    sizes = table.image_sizes[np.maximum(image_rows, 0)]
    heights, widths = sizes[:, 0], sizes[:, 1]
    with np.errstate(invalid="ignore"):
        xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        limits = np.stack([widths, heights, widths, heights], axis=1)
        excess = np.maximum(-xyxy[:, :2].min(axis=1), (xyxy - limits)[:, 2:].max(axis=1))
        clipped = np.clip(xyxy, 0.0, limits)
        gone = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1) & ~tolerated
    faults.add(
        "outside their image",
        (excess > BORDER_TOLERANCE) | gone,
        lambda row: (
            f"has bbox {box_text(row)}, which exceeds its image of {widths[row]:g} x {heights[row]:g} pixels"
            f" by {excess[row]:.1f}"
        ),
    )
    if faults.bad.any():
        _refuse_or_log(table, faults, invalid)
    rows = np.flatnonzero(~faults.bad & ~tolerated)
    return CheckedAnnotations(rows=rows, image_rows=image_rows[rows], classes=classes[rows], boxes=clipped[rows])


def _refuse_or_log(table: AnnotationFile, faults: _Faults, invalid: str) -> None:
    total = int(faults.bad.sum())
    if invalid == "drop":
        logger.warning("%s: dropped %d annotations: %s", table.path, total, faults.summary())
        return
    row = int(np.flatnonzero(faults.bad)[0])
    image_id = int(table.annotation_image_ids[row])
    known = np.flatnonzero(table.image_ids == image_id)
    file_name = f', "{table.image_names[known[0]][0]}"' if len(known) else ""
    rest = f" ({total} annotations are faulty: {faults.summary()})" if total > 1 else ""
    raise DatasetError(
        f"{table.path}: annotation {table.annotation_ids[row]} (image {image_id}{file_name}) "
        f'{faults.texts[row]}{rest}; fix the file or set dataset.invalid="drop"'
    )


def locate_images(table: AnnotationFile, image_root: str) -> tuple[list[str], np.ndarray]:
    """The path of every image, and (N,) bool whether it exists; lists each folder once."""
    listings: dict[str, set[str]] = {}

    def exists(path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in listings:
            try:
                listings[folder] = set(os.listdir(folder))
            except OSError:
                listings[folder] = set()
        return name in listings[folder]

    paths, found = [], np.zeros(len(table.image_names), dtype=bool)
    for row, names in enumerate(table.image_names):
        candidates = [os.path.join(image_root, name) for name in names]
        path = next((candidate for candidate in candidates if exists(candidate)), None)
        found[row] = path is not None
        paths.append(path or candidates[0])
    return paths, found


def check_images(
    table: AnnotationFile, paths: list[str], found: np.ndarray, *, headers: bool, drop: bool
) -> np.ndarray:
    """Checks that image files are there and, with ``headers``, that their headers give the size that the json gives.

    Args:
        paths, found: from ``locate_images``.
        headers: opens every file, about 0.1 ms each on a local disk.
        drop: leave faulty images out and log the count instead of raising.

    Returns:
        (N,) bool, the usable images.

    Raises:
        DatasetError: without ``drop``, for the first faulty image.
    """
    faults = _Faults(len(paths))
    faults.add("missing", ~found, lambda row: f'its file "{paths[row]}" does not exist')
    if headers:
        unusable = np.zeros(len(paths), dtype=bool)
        reasons: dict[int, str] = {}
        for row in np.flatnonzero(found).tolist():
            height, width = (int(v) for v in table.image_sizes[row])
            try:
                check_header(paths[row], height=height, width=width)
            except UnusableImageError as error:
                unusable[row] = True
                reasons[row] = str(error)
        faults.add("unreadable or of another size than the json says", unusable, lambda row: reasons[row])
    if not faults.bad.any():
        return ~faults.bad
    total = int(faults.bad.sum())
    if not drop:
        first = int(np.flatnonzero(faults.bad)[0])
        rest = f" ({total} of {len(paths)} images are unusable: {faults.summary()})" if total > 1 else ""
        raise DatasetError(
            f"{table.path}: image {table.image_ids[first]}: {faults.texts[first]}{rest}; fix the file or the image "
            'folder (dataset.train.images / dataset.val.images), or, for training, set dataset.invalid="drop"'
        )
    if total == len(paths):
        raise DatasetError(f"{table.path}: not one of its {total} images is usable; the first: {faults.texts[0]}")
    logger.warning("%s: dropped %d of %d images: %s", table.path, total, len(paths), faults.summary())
    return ~faults.bad


def check_header(path: str, *, height: int, width: int) -> None:
    """Compares the size in an image file's header with the wanted one, in stored or in EXIF-turned orientation.

    Raises:
        UnusableImageError: the header cannot be read or gives another size.
    """
    try:
        with Image.open(path) as image:
            size = image.size
            turned = size != (width, height) and image.getexif().get(_EXIF_ORIENTATION) in _SWAPPED_SIDES
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise UnusableImageError(f'"{path}" cannot be read as an image ({error})') from error
    if (width, height) != (size[::-1] if turned else size):
        raise UnusableImageError(f'"{path}" has {size[0]} x {size[1]} pixels where the json says {width} x {height}')

"""What is wrong with annotations: the one set of checks, for training and evaluation.

Tolerances, so that COCO and LVIS load as they are published: a box may exceed its image by up to ``BORDER_TOLERANCE``
pixels and is clipped for training (COCO's do by less than one; 1-based coordinates give one); boxes of zero width or
height are left out of training with a warning while they are at most one in 10,000 (COCO train2017 has two among
860,001). Everything else is refused or dropped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .boxes import xywh_to_xyxy
from .errors import DatasetError
from .faults import Faults
from .objects import area_fault
from .table import AnnotationFile

BORDER_TOLERANCE = 2.0
ZERO_SIZE_TOLERANCE = 1e-4
SMALLEST_SIDE = 1e-6  # pixels; what is below has no size: no detection can match it
LARGEST_COORDINATE = 1e7  # pixels; ten times the largest image
LARGEST_AREA = 1e12

Invalid = Literal["error", "drop"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CheckedAnnotations:
    """The usable annotations of a file.

    Attributes:
        rows: (K,) int64, their rows in the file's columns.
        image_rows: (K,) int64, the row of the image of each.
        classes: (K,) int64, contiguous class ids.
        boxes: (K, 4) float64 XYXY in pixels, inside the image.
        zero_size: (Z,) int64, rows of the few boxes without width or height that are not trained on, but that a
            published file's metrics count.
    """

    rows: NDArray[np.int64]
    image_rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    zero_size: NDArray[np.int64]


def require_invalid(invalid: str) -> Invalid:
    """``dataset.invalid`` if it is a choice that there is.

    Raises:
        DatasetError: it is not.
    """
    if invalid == "error":
        return "error"
    if invalid == "drop":
        return "drop"
    raise DatasetError(f'dataset.invalid must be "error" or "drop", got {invalid!r}')


def check_annotations(table: AnnotationFile, *, invalid: str = "error", amodal: bool = False) -> CheckedAnnotations:
    """Checks every annotation once: known image and category, unique id, a finite box with a size, inside its image.

    Args:
        table: the file. Asking again gives the same answer without looking, or logging, again.
        invalid: "error": refuse the file and name its first fault. "drop": leave faulty annotations out and log how
            many of which kind.
        amodal: a box may exceed its image by as much as the image's own size, as where hidden parts of objects are
            annotated: for comparing detections with what a file says.

    Raises:
        DatasetError: with ``invalid="error"``, for the first faulty annotation.
    """
    return _check(table, require_invalid(invalid), amodal)


def annotation_faults(table: AnnotationFile, *, keep: int) -> Faults:
    """What `check_annotations` finds wrong, for those who want to read of it rather than to use the file.

    Args:
        table: the file.
        keep: of how many annotations of each kind of fault it is said what is wrong.
    """
    return _find_faults(table, amodal=False, keep=keep)[0]


@lru_cache(maxsize=4)
def _check(table: AnnotationFile, invalid: Invalid, amodal: bool) -> CheckedAnnotations:
    faults, tolerated, image_rows, classes, clipped = _find_faults(table, amodal=amodal)
    if faults.bad.any():
        _refuse_or_log(table, faults, invalid)
    rows = np.flatnonzero(~faults.bad & ~tolerated)
    _warn_of_normalised(table, rows)
    return CheckedAnnotations(
        rows=rows,
        image_rows=image_rows[rows],
        classes=classes[rows],
        boxes=clipped[rows],
        zero_size=np.flatnonzero(~faults.bad & tolerated),
    )


def _find_faults(
    table: AnnotationFile, *, amodal: bool, keep: int = 1
) -> tuple[Faults, NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The faults; of each item whether its zero size is tolerated, its image's row, its class, its clipped box."""
    order = np.argsort(table.image_ids)
    image_rows = _positions(table.image_ids[order], order, table.annotation_image_ids)
    category_ids = np.asarray(table.categories.ids, dtype=np.int64)
    classes = _positions(category_ids, np.arange(len(category_ids)), table.annotation_category_ids)
    faults = Faults(len(image_rows), keep=keep)
    _find_wrong_values(table, image_rows, classes, faults)
    tolerated = _find_zero_sizes(table, faults)
    clipped = _find_outside(table, image_rows, tolerated, faults, amodal=amodal)
    return faults, tolerated, image_rows, classes, clipped


def _positions(
    sorted_by_id: NDArray[np.int64], order: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each wanted id its row, or -1."""
    if not len(sorted_by_id):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.clip(np.searchsorted(sorted_by_id, wanted), 0, len(sorted_by_id) - 1)
    return np.where(sorted_by_id[place] == wanted, order[place], -1)


def _box_text(table: AnnotationFile, row: int) -> str:
    return str([float(f"{v:.12g}") for v in table.annotation_boxes[row]])


def _find_wrong_values(
    table: AnnotationFile, image_rows: NDArray[np.int64], classes: NDArray[np.int64], faults: Faults
) -> None:
    boxes, areas = table.annotation_boxes, table.annotation_areas
    for kind in {fault.kind for fault in table.faults.values()}:
        rows = [row for row, fault in table.faults.items() if fault.kind == kind]
        unreadable = np.zeros(len(boxes), dtype=bool)
        unreadable[rows] = True
        faults.add(kind, unreadable, lambda row: table.faults[row].text)
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
        "without four finite numbers as box",
        np.logical_not((np.abs(boxes) <= LARGEST_COORDINATE).all(axis=1)),
        lambda row: f"has bbox {_box_text(table, row)}, which is not four finite numbers of pixels",
    )
    faults.add("with negative width", boxes[:, 2] < 0, lambda row: f"has width {boxes[row, 2]}")
    faults.add("with negative height", boxes[:, 3] < 0, lambda row: f"has height {boxes[row, 3]}")
    faults.add(
        "with an impossible area",
        np.logical_not((areas >= 0) & (areas <= LARGEST_AREA)),
        lambda row: area_fault(float(areas[row])).text,
    )


def _find_zero_sizes(table: AnnotationFile, faults: Faults) -> NDArray[np.bool_]:
    """(M,) the boxes of zero size that are tolerated."""
    with np.errstate(over="ignore", invalid="ignore"):  # of boxes that are refused already
        corners = xywh_to_xyxy(table.annotation_boxes)
    # as they are beside their place: a width of 1e-20 vanishes there, and areas of less than 1e-300 do anyway
    zero = (corners[:, 2:] - corners[:, :2] < SMALLEST_SIDE).any(axis=1) & ~faults.bad
    few = bool(zero.sum() <= ZERO_SIZE_TOLERANCE * len(zero))
    tolerated = zero if few else np.zeros_like(zero)
    if tolerated.any():
        logger.warning("%s: left out %d boxes of zero width or height", table.path, tolerated.sum())
    faults.add("of zero size", zero & ~tolerated, lambda row: f"has a box of zero size, {_box_text(table, row)}")
    return tolerated


def _find_outside(
    table: AnnotationFile,
    image_rows: NDArray[np.int64],
    tolerated: NDArray[np.bool_],
    faults: Faults,
    *,
    amodal: bool,
) -> NDArray[np.float64]:
    """(M, 4) XYXY, clipped to the image where its size is known."""
    sizes = np.nan_to_num(table.image_sizes, nan=np.inf)[np.maximum(image_rows, 0)]
    heights, widths = sizes[:, 0], sizes[:, 1]
    allowed: NDArray[np.float64] | float = BORDER_TOLERANCE
    with np.errstate(over="ignore", invalid="ignore"):
        xyxy = xywh_to_xyxy(table.annotation_boxes)
        limits = np.stack([widths, heights, widths, heights], axis=1)
        if amodal:
            allowed = np.maximum(BORDER_TOLERANCE, limits[:, :2])
        over = np.maximum(-xyxy[:, :2], (xyxy - limits)[:, 2:])
        clipped = np.clip(xyxy, 0.0, limits)
        gone = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1) & ~tolerated
        unknown = np.isinf(limits).any(axis=1)
        outside: NDArray[np.bool_] = ((over > allowed).any(axis=1) | gone) & ~unknown
        excess = over.max(axis=1)
    faults.add(
        "outside their image",
        outside,
        lambda row: (
            f"has bbox {_box_text(table, row)}, which exceeds its image of {widths[row]:g} x {heights[row]:g} pixels"
            f" by {excess[row]:.1f}"
        ),
    )
    return clipped


def _refuse_or_log(table: AnnotationFile, faults: Faults, invalid: Invalid) -> None:
    total = int(faults.bad.sum())
    if invalid == "drop":
        logger.warning("%s: dropped %d annotations: %s", table.path, total, faults.summary())
        return
    row, text = faults.first
    image_id = int(table.annotation_image_ids[row])
    known = np.flatnonzero(table.image_ids == image_id)
    names = table.image_names[known[0]] if len(known) else ()
    file_name = f', "{names[0][:80]}"' if names else ""
    rest = f" ({total} annotations are faulty: {faults.summary()})" if total > 1 else ""
    raise DatasetError(
        f"{table.path}: annotation {table.annotation_ids[row]} (image {image_id}{file_name}) "
        f'{text}{rest}; fix the file or set dataset.invalid="drop"'
    )


def _warn_of_normalised(table: AnnotationFile, rows: NDArray[np.int64]) -> None:
    corners = xywh_to_xyxy(table.annotation_boxes[rows])
    if len(corners) and corners.min() >= 0 and corners.max() <= 1:
        logger.warning(
            "%s: all %d boxes lie between 0 and 1, so they are probably parts of the image's sides; boxes must be "
            "x, y, width, height in pixels",
            table.path,
            len(corners),
        )

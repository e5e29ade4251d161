"""Finding image files, and what is wrong with them, before training does."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import AnnotationFile, DatasetError, UnusableImageError, shown, wrong_size
from hdetr_d2.annotations.faults import Faults
from hdetr_d2.images import check_header

logger = logging.getLogger(__name__)

_THREADS = 8
_AT_ONCE = 1024


def require_image_entries(table: AnnotationFile) -> None:
    """What loading images needs of a file and metrics do not: the size of every image, and what its file is called.

    Raises:
        DatasetError: an image does not say it.
    """
    unsized = np.argwhere(np.isnan(table.image_sizes))
    if len(unsized):
        row, side = unsized[0].tolist()
        raise wrong_size(table.path, int(table.image_ids[row]), ("height", "width")[side], None)
    for identity, names in zip(table.image_ids.tolist(), table.image_names):
        if not names:
            raise DatasetError(f'{table.path}: image {identity} has neither "file_name" nor "coco_url"')


def locate_images(table: AnnotationFile, image_root: str) -> tuple[list[str], NDArray[np.bool_]]:
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
        written = [*names, *(name.replace("\\", "/") for name in names if "\\" in name)]  # on Windows
        candidates = [os.path.join(image_root, name) for name in written]
        path = next((candidate for candidate in candidates if exists(candidate)), None)
        found[row] = path is not None
        paths.append(path or candidates[0])
    return paths, found


def check_images(
    table: AnnotationFile, paths: list[str], found: NDArray[np.bool_], *, seconds: float, drop: bool
) -> NDArray[np.bool_]:
    """Checks that image files are there, are whole, and that their headers give the size that the json gives.

    Args:
        paths, found: from ``locate_images``.
        seconds: for looking into the files; those for which they do not suffice are looked at when they are decoded.
            0 looks into none, infinity into all. With ``drop`` it must be one of these two: processes that left out
            different images would not train on the same data.
        drop: leave faulty images out and log the count instead of raising.

    Returns:
        (N,) bool, the usable images.

    Raises:
        DatasetError: without ``drop``, for the first faulty image.
    """
    faults = Faults(len(paths))
    faults.add("missing", ~found, lambda row: f"its file {_quoted(paths[row])} does not exist")
    reasons = _look_inside(table, paths, np.flatnonzero(found).tolist(), seconds)
    unusable = np.zeros(len(paths), dtype=bool)
    unusable[list(reasons)] = True
    faults.add("unreadable or of another size than the json says", unusable, lambda row: reasons[row])
    if not faults.bad.any():
        return ~faults.bad
    total = int(faults.bad.sum())
    first, text = faults.first
    if not drop:
        rest = f" ({total} of {len(paths)} images are unusable: {faults.summary()})" if total > 1 else ""
        raise DatasetError(
            f"{table.path}: image {table.image_ids[first]}: {text}{rest}; fix the file or the image "
            'folder (dataset.train.images / dataset.val.images), or, for training, set dataset.invalid="drop"'
        )
    if total == len(paths):
        raise DatasetError(f"{table.path}: not one of its {total} images is usable; the first: {text}")
    logger.warning("%s: dropped %d of %d images: %s", table.path, total, len(paths), faults.summary())
    return ~faults.bad


def _look_inside(table: AnnotationFile, paths: list[str], rows: list[int], seconds: float) -> dict[int, str]:
    """What is wrong with image files, by row."""

    def look(row: int) -> str:
        height, width = (int(side) for side in table.image_sizes[row])
        try:
            check_header(paths[row], height=height, width=width)
        except UnusableImageError as error:
            return str(error)
        return ""

    reasons: dict[int, str] = {}
    start = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(rows), _AT_ONCE):
            if time.monotonic() - start >= seconds:
                if seconds:
                    logger.info(
                        "%s: %d of %d image files were looked at in %.0f s, the others are when they are decoded",
                        table.path, first, len(rows), seconds,
                    )  # fmt: skip
                break
            some = rows[first : first + _AT_ONCE]
            reasons.update((row, reason) for row, reason in zip(some, pool.map(look, some)) if reason)
    return reasons


def _quoted(path: str) -> str:
    return f'"{path}"' if len(path) < 300 and path.isprintable() else shown(path)

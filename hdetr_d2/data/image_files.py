"""Finding image files, and what is wrong with them, before training does."""

from __future__ import annotations

import logging
import os

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.annotations import AnnotationFile, DatasetError, UnusableImageError, shown, wrong_size
from hdetr_d2.annotations.faults import Faults

from .images import check_header

logger = logging.getLogger(__name__)


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
        candidates = [os.path.join(image_root, name) for name in names]
        path = next((candidate for candidate in candidates if exists(candidate)), None)
        found[row] = path is not None
        paths.append(path or candidates[0])
    return paths, found


def check_images(
    table: AnnotationFile, paths: list[str], found: NDArray[np.bool_], *, headers: bool, drop: bool
) -> NDArray[np.bool_]:
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
    faults = Faults(len(paths))
    faults.add("missing", ~found, lambda row: f"its file {_quoted(paths[row])} does not exist")
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


def _quoted(path: str) -> str:
    return f'"{path}"' if len(path) < 300 and path.isprintable() else shown(path)

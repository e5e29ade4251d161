"""What image files are: whether they can be read, and a small picture of each to compare them by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdetr_d2.annotations import UnusableImageError
from hdetr_d2.images import check_header, opened_image
from hdetr_d2.progress import progress

SIDE = 8
"""Of the small picture."""


@dataclass(frozen=True)
class Looked:
    """One image file.

    Args:
        digest: of the file; "" where it cannot be read.
        small: (SIDE, SIDE, 3) uint8 RGB.
        outline: 64 bits, whether each pixel of a small grey picture is brighter than its left neighbour.
        error: why it cannot be used; "" where it can.
    """

    digest: str
    small: NDArray[np.uint8]
    outline: int
    error: str = ""


_NOTHING = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)


def look_at(images: Sequence[Path], sizes: NDArray[np.int64] | None, *, what: str) -> list[Looked]:
    """Decode image files, several at once.

    Args:
        images: the files.
        sizes: (N, 2) width and height that they must have; None or 0 for any.
        what: the split, for the progress.
    """
    wanted = [None] * len(images) if sizes is None else [tuple(size) if all(size) else None for size in sizes.tolist()]
    with ThreadPoolExecutor(max_workers=max(1, min(8, os.cpu_count() or 1))) as pool:
        looked = pool.map(_look, images, wanted)
        return list(progress(looked, what=f"looking at {what}", unit="image", total=len(images)))


def _look(path: Path, size: tuple[int, int] | None) -> Looked:
    try:
        if size is not None:
            check_header(str(path), width=size[0], height=size[1])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with opened_image(path) as image:
            image.draft("RGB", (8 * SIDE, 8 * SIDE))  # of a JPEG only as much as is needed
            colours = image.convert("RGB")
            small = np.asarray(colours.resize((SIDE, SIDE), Image.Resampling.BOX))
            grey = np.asarray(colours.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX))
    except UnusableImageError as error:
        return Looked("", _NOTHING, 0, str(error))
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        return Looked("", _NOTHING, 0, f'"{path}" cannot be read as an image ({type(error).__name__}: {error})')
    bits = np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
    return Looked(digest, small, int.from_bytes(bits, "big"))

"""Coloured rectangles on black, and where they are in an image afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from PIL import Image

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]
BRIGHT = 128


def draw(height: int, width: int, boxes: np.ndarray, classes: list[int]) -> np.ndarray:
    """(H, W, 3) uint8; class c is filled with ``COLOURS[c]``, later boxes cover earlier ones."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for (x0, y0, x1, y1), index in zip(np.asarray(boxes).astype(int), classes):
        image[y0:y1, x0:x1] = COLOURS[index]
    return image


def find(image: np.ndarray, index: int) -> np.ndarray | None:
    """XYXY of the pixels that look like class ``index`` in an (H, W, 3) image, None without any."""
    rows, columns = np.nonzero(((image >= BRIGHT) == (np.array(COLOURS[index]) > 0)).all(axis=-1))
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)


def write_record(folder: Path, identity: int, height: int, width: int, boxes: Any, classes: list[int]) -> dict:
    """A dataset dict with its image file."""
    path = folder / f"{identity:03d}.png"
    Image.fromarray(draw(height, width, boxes, classes)).save(path)
    annotations = [
        {"bbox": [float(v) for v in box], "bbox_mode": BoxMode.XYXY_ABS, "category_id": index, "iscrowd": 0}
        for box, index in zip(boxes, classes)
    ]
    return {
        "file_name": str(path), "image_id": identity, "height": height, "width": width, "annotations": annotations
    }  # fmt: skip

"""A picture while objects are pasted on it, and what can be seen of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Box = tuple[int, int, int, int]
"""(x, y, width, height) in pixels."""


@dataclass(frozen=True)
class Placed:
    """An object of a picture: class, box and area of what is seen, and the object below that it was planted upon."""

    class_index: int
    box: Box
    area: int
    partner: int | None = None


def box_overlap(one: Box, other: Box) -> float:
    """The IoU of two boxes."""
    sides = (min(a + m, b + n) - max(a, b) for a, b, m, n in zip(one[:2], other[:2], one[2:], other[2:]))
    width, height = (max(side, 0) for side in sides)
    shared = width * height
    return shared / max(one[2] * one[3] + other[2] * other[3] - shared, 1)


class Canvas:
    """The picture while it is painted, with the map of which object owns which pixel.

    Args:
        pixels: (H, W, 3) float32 in [0, 255].
        overlap: least and largest IoU of the boxes of a pair; None where no object is planted upon another.
    """

    def __init__(self, pixels: np.ndarray, *, overlap: tuple[float, float] | None = None) -> None:
        self.pixels = pixels
        self.owner: np.ndarray = np.zeros(pixels.shape[:2], dtype=np.int32)  # 0 is background, object i has i + 1
        self.full: list[int] = []  # pixels of the whole silhouette, also those outside the picture
        self.visible: list[int] = []
        self.partners: dict[int, int] = {}
        self._overlap = overlap

    def window(self, x: int, y: int, width: int, height: int) -> tuple[slice, slice, slice, slice] | None:
        """The part of a patch at (x, y) that lies in the picture: slices (y, x) of the picture and of the patch."""
        x0, y0 = max(x, 0), max(y, 0)
        picture_height, picture_width = self.pixels.shape[:2]
        x1, y1 = min(x + width, picture_width), min(y + height, picture_height)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1), slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)

    def place(self, alpha: np.ndarray, x: int, y: int, min_visible: float, partner: int | None = None) -> bool:
        """Claims the pixels for a new object if it and all below it stay visible enough; says whether it did.

        Of the lower object of a pair, half of ``min_visible`` is enough. Pairs keep their overlap: with a ``partner``,
        the new object makes one with that, and no object is placed where it would hide so much of a pair that its boxes
        no longer overlap as they are to.
        """
        solid = alpha > 0.5
        full = int(solid.sum())
        window = self.window(x, y, alpha.shape[1], alpha.shape[0])
        if window is None:
            return False
        rows, columns, patch_rows, patch_columns = window
        inside = solid[patch_rows, patch_columns]
        seen = int(inside.sum())
        if seen < 4 or seen < max(min_visible, 0.5) * full:
            return False
        owner = self.owner[rows, columns]
        hidden = np.bincount(owner[inside], minlength=len(self.full) + 1)[1:]
        below = np.flatnonzero(hidden)
        planted = {partner, *self.partners.values()}
        for index in below:
            left = self.visible[index] - int(hidden[index])
            least = min_visible / 2 if index in planted else min_visible
            if left < 4 or left < least * self.full[index]:
                return False
        before = owner.copy()
        owner[inside] = len(self.full) + 1
        if not self._pairs_overlap(below, partner):
            owner[:] = before
            return False
        for index in below:
            self.visible[index] -= int(hidden[index])
        if partner is not None:
            self.partners[len(self.full)] = partner
        self.full.append(full)
        self.visible.append(seen)
        return True

    def _pairs_overlap(self, below: Iterable[int], partner: int | None) -> bool:
        """Whether all pairs overlap as they are to: those with an object ``below`` a new one, and that of the new."""
        if self._overlap is None:
            return True
        touched = {int(index) for index in below}
        pairs = [pair for pair in self.partners.items() if touched.intersection(pair)]
        if partner is not None:
            pairs.append((len(self.full), partner))
        low, high = self._overlap
        return all(low <= box_overlap(self.box(one), self.box(other)) <= high for one, other in pairs)

    def box(self, index: int) -> Box:
        """The box around the visible pixels of an object; pixel edges, so one pixel has width 1."""
        mask = self.owner == index + 1
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y

    def measured(self, index: int, class_index: int) -> Placed:
        """What is seen of an object."""
        area = int((self.owner == index + 1).sum())
        return Placed(class_index, self.box(index), area, self.partners.get(index))

    def paint(self, rgb: np.ndarray, alpha: np.ndarray, x: int, y: int) -> None:
        """Blend (h, w, 3) colours, weighted by (h, w) ``alpha`` in [0, 1], with their upper left corner at (x, y)."""
        window = self.window(x, y, alpha.shape[1], alpha.shape[0])
        if window is None:
            return
        rows, columns, patch_rows, patch_columns = window
        weight = alpha[patch_rows, patch_columns, None]
        under = self.pixels[rows, columns]
        self.pixels[rows, columns] = under + (rgb[patch_rows, patch_columns] - under) * weight

    def cast_shadow(self, alpha: np.ndarray, x: int, y: int, blur: float, opacity: float) -> None:
        margin = int(np.ceil(blur * 2))
        silhouette = Image.fromarray((np.pad(alpha, margin) * 255).astype(np.uint8))
        soft = np.asarray(silhouette.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32) * (opacity / 255.0)
        self.paint(np.zeros((*soft.shape, 3), dtype=np.float32), soft, x - margin, y - margin)

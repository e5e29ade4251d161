"""Mosaics: four images in one, so that an image has more objects (DEIM, Huang et al., CVPR 2025: dense one-to-one).

The geometry is that of DEIM's code: four images, their shorter sides resized to one length, stand at the upper left
corners of the cells of a 2 x 2 grid as large as the largest of them; the canvas is then turned, moved and scaled about
its centre, and keeps its size.
"""

# ruff: noqa: NPY002  (the generator of Detectron2's transforms)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from .context import ALWAYS, as_range

_LONGEST_STRIP = 20  # a longer side by a shorter one


@dataclass(frozen=True)
class LabelledImage:
    """An image and its objects.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64 XYXY pixels.
        classes: (N,) int64.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]


class AffineTransform(T.Transform):
    """Turn, move and scale about the centre of an image, whose size stays: p' = c + t + s R(a) (p - c).

    A box becomes the hull of its turned corners, not clipped. Pixels are those of the nearest source pixel, or
    ``fill`` outside of it.

    Args:
        size: height and width of the image.
        angle: in degrees, clockwise as seen.
        translate: (x, y) in pixels.
        scale: above 0.
        fill: grey value.

    Attributes:
        matrix: (2, 3) float64, from (x, y, 1) of the source to (x, y) of the result.
    """

    def __init__(
        self, *, size: tuple[int, int], angle: float, translate: Sequence[float], scale: float, fill: int = 0
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"AffineTransform: scale must be positive, not {scale}")
        height, width = size
        self.width, self.height, self.fill = width, height, fill
        turn = math.radians(angle)
        linear = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        centre = np.array([width, height]) / 2
        shift = centre + np.asarray(translate, dtype=np.float64) - linear @ centre
        self.matrix = np.concatenate([linear, shift[:, None]], axis=1)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """The (H, W, 3) uint8 image of the same size."""
        back = np.linalg.inv(self.matrix[:, :2])
        inverse = np.concatenate([back, -back @ self.matrix[:, 2:]], axis=1)
        image = Image.fromarray(img).transform(
            (self.width, self.height),
            Image.Transform.AFFINE,
            inverse.flatten().tolist(),
            Image.Resampling.NEAREST,
            fillcolor=(self.fill,) * 3,
        )
        return np.asarray(image)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]


def resize_shorter_side(item: LabelledImage, size: int) -> LabelledImage:
    """The shorter side becomes ``size``; the longer one is rounded down, and boxes follow each side's own factor.

    Of a strip of more than 1 : 20 the longer side becomes 20 times ``size``, because the canvas is as large as that.
    """
    height, width = item.size
    shorter = max(min(height, width), max(height, width) / _LONGEST_STRIP)
    new_height, new_width = (
        size if side == shorter else max(1, int(size * side / shorter)) for side in (height, width)
    )
    resize = T.ResizeTransform(height, width, new_height, new_width, Image.Resampling.BILINEAR)
    return LabelledImage(resize.apply_image(item.image), resize.apply_box(item.boxes), item.classes)


def tile(items: Sequence[LabelledImage]) -> LabelledImage:
    """Four images at the upper left corners of a 2 x 2 grid's cells, in reading order; what is left is black.

    Returns:
        The canvas, twice as large as the largest height and width, with the objects of all four in their order.
    """
    if len(items) != 4:
        raise ValueError(f"a mosaic is made of 4 images, not of {len(items)}")
    cell_height, cell_width = (max(item.size[axis] for item in items) for axis in (0, 1))
    canvas = np.zeros((2 * cell_height, 2 * cell_width, 3), dtype=np.uint8)
    boxes = []
    for index, item in enumerate(items):
        row, column = divmod(index, 2)
        top, left = row * cell_height, column * cell_width
        canvas[top : top + item.size[0], left : left + item.size[1]] = item.image
        boxes.append(item.boxes + np.array([left, top, left, top], dtype=np.float64))
    return LabelledImage(canvas, np.concatenate(boxes), np.concatenate([item.classes for item in items]))


def apply_affine(item: LabelledImage, transform: AffineTransform) -> LabelledImage:
    """Boxes are clipped to the canvas; those outside of it stay as boxes without area, so that none is lost here."""
    height, width = item.size
    boxes = np.clip(transform.apply_box(item.boxes), 0.0, np.array([width, height] * 2, dtype=np.float64))
    return LabelledImage(transform.apply_image(item.image), boxes, item.classes)


class Mosaic:
    """Random mosaics of an image and three others, drawn from the dataset with replacement.

    Args:
        probability: that an image becomes a mosaic, in ``epochs``.
        epochs: from the first on, before the second.
        size: of the shorter side of each of the four, in pixels.
        max_angle: the canvas is turned by up to so many degrees to either side.
        max_translation: of the canvas by its own width and height, to either side; whole pixels.
        scale: range of the scale.
        fill: grey value of what comes from outside of the canvas.
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        epochs: Sequence[float] = ALWAYS,
        size: int = 320,
        max_angle: float = 10.0,
        max_translation: float = 0.1,
        scale: Sequence[float] = (0.5, 1.5),
        fill: int = 0,
    ) -> None:
        self.probability = probability
        self.epochs = as_range(epochs, "Mosaic: epochs")
        self.size = size
        self.max_angle = max_angle
        self.max_translation = max_translation
        self.scale = as_range(scale, "Mosaic: scale", lowest=1e-3)
        self.fill = fill

    def is_due(self, epoch: float) -> bool:
        """Whether this image becomes a mosaic; outside of the epochs no number is drawn."""
        return self.epochs[0] <= epoch < self.epochs[1] and bool(np.random.rand() < self.probability)

    def draw_transform(self, size: tuple[int, int]) -> AffineTransform:
        """A random transform of a canvas of height and width ``size``."""
        height, width = size
        angle = np.random.uniform(-self.max_angle, self.max_angle)
        limits = (self.max_translation * width, self.max_translation * height)
        translate = [float(round(np.random.uniform(-limit, limit))) for limit in limits]
        scale = np.random.uniform(*self.scale)
        return AffineTransform(size=size, angle=angle, translate=translate, scale=scale, fill=self.fill)

    def __call__(self, items: Sequence[LabelledImage]) -> LabelledImage:
        """A mosaic of four images."""
        canvas = tile([resize_shorter_side(item, self.size) for item in items])
        return apply_affine(canvas, self.draw_transform(canvas.size))

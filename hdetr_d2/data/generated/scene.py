"""One picture of the generated dataset: objects with light, shade and shadow pasted on a background.

Every object in a picture is annotated. An object is placed only where it and all objects below it stay visible enough
(``Scene.min_visible``), so that no fragment is left that a detector would be punished for finding; the box is drawn
tightly around the pixels that can be seen (as COCO's annotators did), not around the hidden extent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .backgrounds import background
from .classes import COLOURS, ObjectClass
from .shapes import draw_sprite


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What pictures look like.

    Args:
        image_size: smallest and largest side of a picture in pixels; width and height are drawn independently.
        max_objects: most objects in one picture; their number is spread evenly in its logarithm.
        object_scale: smallest and largest diameter of an object as a part of the picture's mean side; spread evenly in
            the logarithm. The default spans 1:8.
        min_visible: least part of an object's pixels that is seen after occlusion and cutting at the border.
        max_classes_per_image: most different classes in one picture.
        clutter: strength of the unannotated lines and smears, 0 for none.
    """

    image_size: tuple[int, int] = (192, 192)
    max_objects: int = 30
    object_scale: tuple[float, float] = (0.08, 0.64)
    min_visible: float = 0.3
    max_classes_per_image: int = 8
    clutter: float = 1.0


@dataclass(frozen=True)
class Placed:
    """An object of a picture: class, box of what is seen (x, y, width, height; pixels), area of what is seen."""

    class_index: int
    box: tuple[int, int, int, int]
    area: int


class SpriteBank:
    """Sprites of all classes in a few phases of their pattern, drawn at the first use."""

    PHASES = 4

    def __init__(self, classes: Sequence[ObjectClass], *, size: int) -> None:
        self._classes = classes
        self._size = size
        self._sprites: dict[tuple[int, int], Image.Image] = {}

    def get(self, class_index: int, phase: int) -> Image.Image:
        """The picture of a class, RGBA, ``size`` pixels a side, turned by ``phase`` of ``PHASES`` parts of a circle."""
        key = (class_index, phase)
        if key not in self._sprites:
            kind = self._classes[class_index]
            angle = 2.0 * np.pi * phase / self.PHASES
            self._sprites[key] = draw_sprite(
                kind.shape, kind.pattern, COLOURS[kind.colour], size=self._size, phase=angle
            )
        return self._sprites[key]


def _turned(sprite: Image.Image, rng: np.random.Generator, diameter: float) -> Image.Image:
    """The sprite at its size in the picture: stretched a little, turned by any angle, cut to its silhouette."""
    aspect = float(np.exp(rng.uniform(-0.25, 0.25)))
    size = (max(4, round(diameter * aspect**0.5)), max(4, round(diameter / aspect**0.5)))
    small = sprite.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    turned = small.rotate(float(rng.uniform(0.0, 360.0)), Image.Resampling.BICUBIC, expand=True)
    return turned.crop(turned.getchannel("A").getbbox())


def _lit(rgb: np.ndarray, alpha: np.ndarray, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Adds the look of a body: jittered colour, a slope of light, a bevelled and darkened edge, a highlight.

    Args:
        rgb: (h, w, 3) float32 in [0, 255].
        alpha: (h, w) float32 in [0, 1].
        light: unit vector (x, y) towards the light.
    """
    height, width = alpha.shape
    radius = max(1.0, 0.05 * (height + width) / 2)
    padded = np.pad(alpha, 4)
    blurred = Image.fromarray((padded * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    dome = np.asarray(blurred, dtype=np.float32)[4:-4, 4:-4] / 255.0
    slope_y, slope_x = np.gradient(dome)
    bevel = -(slope_x * light[0] + slope_y * light[1]) * radius * 1.1
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = (x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1
    across = u * light[0] + v * light[1]
    shade = 1.0 + 0.22 * across + bevel - 0.35 * (1.0 - np.clip(dome * 1.6, 0, 1))
    gloss = rng.uniform(0.0, 90.0)
    spot = np.exp(-((u - 0.4 * light[0]) ** 2 + (v - 0.4 * light[1]) ** 2) / 0.06)
    jitter = rng.uniform(0.88, 1.12, size=3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.15))
    return np.clip(rgb * jitter * shade[..., None] + gloss * spot[..., None], 0, 255)


class _Canvas:
    """The picture while it is painted, with the map of which object owns which pixel."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.owner = np.zeros(pixels.shape[:2], dtype=np.int32)  # 0 is background, object i has i + 1
        self.full: list[int] = []  # pixels of the whole silhouette, also those outside the picture
        self.visible: list[int] = []

    def window(self, x: int, y: int, width: int, height: int) -> tuple[slice, slice, slice, slice] | None:
        """The part of a patch at (x, y) that lies in the picture: slices (y, x) of the picture and of the patch."""
        x0, y0 = max(x, 0), max(y, 0)
        picture_height, picture_width = self.pixels.shape[:2]
        x1, y1 = min(x + width, picture_width), min(y + height, picture_height)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1), slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)

    def place(self, alpha: np.ndarray, x: int, y: int, min_visible: float) -> bool:
        """Claims the pixels for a new object if it and all below it stay visible enough; says whether it did."""
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
        hidden = np.bincount(self.owner[rows, columns][inside], minlength=len(self.full) + 1)[1:]
        for index in np.flatnonzero(hidden):
            left = self.visible[index] - int(hidden[index])
            if left < 4 or left < min_visible * self.full[index]:
                return False
        for index in np.flatnonzero(hidden):
            self.visible[index] -= int(hidden[index])
        self.full.append(full)
        self.visible.append(seen)
        self.owner[rows, columns][inside] = len(self.full)
        return True

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


def _number_of_objects(rng: np.random.Generator, scene: Scene) -> int:
    """Evenly spread in the logarithm from 1 to max_objects."""
    return min(scene.max_objects, int(np.exp(rng.uniform(0.0, np.log(scene.max_objects + 1)))))


def _add_clutter(pixels: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Translucent lines, arcs and smears of muted colour, under the objects."""
    height, width = pixels.shape[:2]
    layer = Image.new("RGBA", (2 * width, 2 * height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    for _ in range(rng.poisson(4.0 * strength)):
        ink = (*(int(v) for v in rng.integers(20, 235, size=3)), int(rng.integers(40, 150)))
        x0, y0, x1, y1 = (float(v) for v in rng.uniform(0, 1, size=4) * np.array([width, height] * 2) * 2)
        thickness = int(rng.integers(1, max(2, min(width, height) // 24)))
        if rng.random() < 0.6:
            pen.line([x0, y0, x1, y1], fill=ink, width=thickness)
        else:
            start, sweep = float(rng.uniform(0, 360)), float(rng.uniform(30, 150))
            corners = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
            pen.arc(corners, start, start + sweep, fill=ink, width=thickness)
    smooth = np.asarray(layer.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    weight = smooth[..., 3:] / 255.0
    return pixels + (smooth[..., :3] - pixels) * weight


def _finish(pixels: np.ndarray, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Light falling off over the picture, sensor noise, sometimes a soft lens: (H, W, 3) uint8."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    falloff = 1.0 + rng.uniform(0.0, 0.18) * (x * light[0] + y * light[1])
    lit = pixels * falloff[..., None] * np.float32(rng.uniform(0.8, 1.12))
    if rng.random() < 0.25:
        soft = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
        lit = np.asarray(soft.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8))), dtype=np.float32)
    noise = rng.standard_normal(size=lit.shape, dtype=np.float32) * np.float32(rng.uniform(1.0, 6.0))
    return np.clip(lit + noise, 0, 255).astype(np.uint8)


def compose(
    rng: np.random.Generator,
    *,
    scene: Scene,
    bank: SpriteBank,
    probabilities: np.ndarray,
    required_class: int | None = None,
) -> tuple[np.ndarray, list[Placed], np.ndarray]:
    """Draws one picture.

    Args:
        rng: decides everything in the picture.
        bank: sprites of as many classes as ``probabilities`` has entries.
        probabilities: (num_classes,) sum 1, of the classes.
        required_class: a class that the first object has, to make sure that every class occurs in a set.

    Returns:
        The picture (H, W, 3) uint8 RGB, its objects from the lowest to the topmost, and the owner map (H, W) int32 in
        which pixel values i + 1 belong to object i and 0 to the background.
    """
    low, high = scene.image_size
    height, width = int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    pixels = _add_clutter(background(rng, height, width), rng, scene.clutter)
    canvas = _Canvas(pixels.astype(np.float32))

    count = _number_of_objects(rng, scene)
    kinds = rng.choice(len(probabilities), size=int(rng.integers(1, scene.max_classes_per_image + 1)), p=probabilities)
    labels = rng.choice(kinds, size=count)
    if required_class is not None:
        labels[0] = required_class
    smallest, largest = (np.log(s * (height + width) / 2) for s in scene.object_scale)
    # In a crowd objects are smaller, so that about three quarters of the picture is the most that they can cover.
    largest_here = min(largest, max(smallest + 0.5, np.log(1.7 * np.sqrt(height * width / count))))
    diameters = np.exp(rng.uniform(smallest, largest_here, size=count))
    shadow_shift, shadow_opacity = rng.uniform(0.03, 0.1), rng.uniform(0.15, 0.5)

    placed: list[int] = []
    for label, diameter in zip(labels, diameters, strict=True):
        sprite = _turned(bank.get(int(label), int(rng.integers(SpriteBank.PHASES))), rng, float(diameter))
        patch = np.asarray(sprite, dtype=np.float32)
        alpha = patch[..., 3] / 255.0
        h, w = alpha.shape
        for _ in range(8):
            x = int(rng.uniform(-0.3 * w, width - 0.7 * w))
            y = int(rng.uniform(-0.3 * h, height - 0.7 * h))
            if canvas.place(alpha, x, y, scene.min_visible):
                shift = -light * shadow_shift * diameter
                blur = max(0.8, 0.05 * float(diameter))
                canvas.cast_shadow(alpha, x + round(float(shift[0])), y + round(float(shift[1])), blur, shadow_opacity)
                canvas.paint(_lit(patch[..., :3], alpha, rng, light), alpha, x, y)
                placed.append(int(label))
                break
    objects = [_measure(canvas.owner, index, label) for index, label in enumerate(placed)]
    return _finish(canvas.pixels, rng, light), objects, canvas.owner


def _measure(owner: np.ndarray, index: int, label: int) -> Placed:
    """The box around the visible pixels of one object; pixel edges, so one pixel has width 1."""
    mask = owner == index + 1
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    box = (x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
    return Placed(class_index=label, box=box, area=int(mask.sum()))

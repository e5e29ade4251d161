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
from .canvas import Box, Canvas, Placed, box_overlap
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
        overlap: least and largest IoU of the boxes of a pair, where objects come in pairs, of which the second is
            planted upon the first; None where all are placed at random. An object that no partner is found for is
            alone, which happens the more often, the closer the two numbers and the nearer to 1. Of a pair's lower
            object half as much must be seen.
    """

    image_size: tuple[int, int] = (192, 192)
    max_objects: int = 30
    object_scale: tuple[float, float] = (0.08, 0.64)
    min_visible: float = 0.3
    max_classes_per_image: int = 8
    clutter: float = 1.0
    overlap: tuple[float, float] | None = None


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


class _Painter:
    """Places the objects of one picture and paints them."""

    def __init__(
        self, rng: np.random.Generator, scene: Scene, bank: SpriteBank, canvas: Canvas, light: np.ndarray
    ) -> None:
        self._rng = rng
        self._scene = scene
        self._bank = bank
        self._canvas = canvas
        self._light = light
        self._shadow_shift, self._shadow_opacity = rng.uniform(0.03, 0.1), rng.uniform(0.15, 0.5)

    def add(self, label: int, diameter: float) -> bool:
        """Try some random places for an object; says whether one was free."""
        patch, alpha = self._drawn(label, diameter)
        h, w = alpha.shape
        height, width = self._canvas.owner.shape
        for _ in range(8):
            x = int(self._rng.uniform(-0.3 * w, width - 0.7 * w))
            y = int(self._rng.uniform(-0.3 * h, height - 0.7 * h))
            if self._canvas.place(alpha, x, y, self._scene.min_visible):
                self._paint(patch, alpha, x, y, diameter)
                return True
        return False

    def add_partner(self, label: int, diameter: float) -> bool:
        """Try to plant an object of about that diameter upon the last one; says whether it found a place for it."""
        partner = len(self._canvas.full) - 1
        below = self._canvas.box(partner)
        for _ in range(12):
            size = diameter * float(np.exp(self._rng.uniform(-0.25, 0.25)))
            patch, alpha = self._drawn(label, size)
            for _ in range(6):
                place = self._overlapping(below, alpha.shape[1], alpha.shape[0])
                if place is not None and self._canvas.place(alpha, *place, self._scene.min_visible, partner):
                    self._paint(patch, alpha, *place, size)
                    return True
        return False

    def _overlapping(self, box: Box, width: int, height: int) -> tuple[int, int] | None:
        """A corner for a patch of that size whose IoU with the box is in the range, in a random direction from it.

        None where the patch is too large or too small for that.
        """
        assert self._scene.overlap is not None
        low, high = self._scene.overlap
        x, y, w, h = box
        middle = x + (w - width) / 2, y + (h - height) / 2
        angle, wanted = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(low, high)

        def at(distance: float) -> tuple[int, int]:
            return round(middle[0] + distance * np.cos(angle)), round(middle[1] + distance * np.sin(angle))

        near, far = 0.0, float(w + h + width + height)
        if box_overlap(box, (*at(0.0), width, height)) < low:
            return None
        for _ in range(12):  # the farther, the less
            between = (near + far) / 2
            near, far = (between, far) if box_overlap(box, (*at(between), width, height)) > wanted else (near, between)
        return at(near)

    def _drawn(self, label: int, diameter: float) -> tuple[np.ndarray, np.ndarray]:
        """A sprite of a class, (h, w, 4) in [0, 255], and its silhouette (h, w) in [0, 1]."""
        phase = int(self._rng.integers(SpriteBank.PHASES))
        patch = np.asarray(_turned(self._bank.get(label, phase), self._rng, diameter), dtype=np.float32)
        return patch, patch[..., 3] / 255.0

    def _paint(self, patch: np.ndarray, alpha: np.ndarray, x: int, y: int, diameter: float) -> None:
        """The object and its shadow, at the place that it has claimed."""
        shift = -self._light * self._shadow_shift * diameter
        blur, opacity = max(0.8, 0.05 * diameter), self._shadow_opacity
        self._canvas.cast_shadow(alpha, x + round(float(shift[0])), y + round(float(shift[1])), blur, opacity)
        self._canvas.paint(_lit(patch[..., :3], alpha, self._rng, self._light), alpha, x, y)


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
    canvas = Canvas(pixels.astype(np.float32), overlap=scene.overlap)

    count = _number_of_objects(rng, scene)
    kinds = rng.choice(len(probabilities), size=int(rng.integers(1, scene.max_classes_per_image + 1)), p=probabilities)
    labels = rng.choice(kinds, size=count)
    if required_class is not None:
        labels[0] = required_class
    smallest, largest = (np.log(s * (height + width) / 2) for s in scene.object_scale)
    # In a crowd objects are smaller, so that about three quarters of the picture is the most that they can cover.
    largest_here = min(largest, max(smallest + 0.5, np.log(1.7 * np.sqrt(height * width / count))))
    diameters = np.exp(rng.uniform(smallest, largest_here, size=count))
    painter = _Painter(rng, scene, bank, canvas, light)
    placed: list[int] = []
    alone: float | None = None  # diameter of the last object, if a partner may be planted upon it
    for label, diameter in zip(labels, diameters, strict=True):
        if alone is not None and painter.add_partner(int(label), alone):
            placed.append(int(label))
            alone = None
        elif painter.add(int(label), float(diameter)):
            placed.append(int(label))
            alone = None if scene.overlap is None else float(diameter)
    objects = [canvas.measured(index, label) for index, label in enumerate(placed)]
    return _finish(canvas.pixels, rng, light), objects, canvas.owner

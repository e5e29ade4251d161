"""Silhouettes and surface patterns of the generated objects, drawn once per class into a bank of sprites.

A sprite is drawn at least twice as large as it is ever shown; the reduction when it is pasted is its anti-aliasing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Outline = list[np.ndarray]  # first polygon filled, the others cut out; (N, 2) points in [-1, 1], y down


def _polar(radius: Callable[[np.ndarray], np.ndarray], *, points: int = 180) -> np.ndarray:
    angle = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
    r = radius(angle)
    return np.stack([r * np.sin(angle), -r * np.cos(angle)], axis=1)


def _star_polygon(tips: int, inner: float) -> np.ndarray:
    angle = np.arange(2 * tips) * np.pi / tips
    r = np.where(np.arange(2 * tips) % 2 == 0, 1.0, inner)
    return np.stack([r * np.sin(angle), -r * np.cos(angle)], axis=1)


def _disc(scale: float = 1.0) -> np.ndarray:
    return _polar(lambda a: np.full_like(a, scale))


def _heart() -> np.ndarray:
    t = np.linspace(0.0, 2.0 * np.pi, 180, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 17.0


def _crescent() -> np.ndarray:
    outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 90)
    inner = np.linspace(1.68 * np.pi, 0.32 * np.pi, 90)
    big = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    small = np.stack([0.42 + 0.72 * np.cos(inner), 0.72 * np.sin(inner)], axis=1)
    both = np.concatenate([big, small])
    return both / np.hypot(*both.T).max()


def _drop() -> np.ndarray:
    t = np.linspace(0.0, 2.0 * np.pi, 180, endpoint=False)
    return np.stack([0.85 * np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], axis=1)


def _leaf() -> np.ndarray:
    t = np.linspace(0.0, np.pi, 90)
    right = np.stack([0.5 * np.sin(t) ** 1.2, -np.cos(t)], axis=1)
    return np.concatenate([right, right[::-1] * np.array([-1.0, 1.0])])


def _gear() -> np.ndarray:
    return _polar(lambda a: 0.86 + 0.14 * np.tanh(5 * np.sin(8 * a)), points=360)


# Every outline lies in the unit disc, so that a turned sprite never leaves its canvas.
SHAPES: dict[str, Outline] = {
    "star": [_star_polygon(5, 0.45)],
    "disc": [_disc(0.95)],
    "triangle": [_star_polygon(3, 0.5)],
    "ring": [_disc(), _disc(0.52)],
    "square": [np.array([[-0.7, -0.7], [0.7, -0.7], [0.7, 0.7], [-0.7, 0.7]])],
    "heart": [_heart()],
    "cross": [
        np.array(
            [
                [-0.3, -0.92],
                [0.3, -0.92],
                [0.3, -0.3],
                [0.92, -0.3],
                [0.92, 0.3],
                [0.3, 0.3],
                [0.3, 0.92],
                [-0.3, 0.92],
                [-0.3, 0.3],
                [-0.92, 0.3],
                [-0.92, -0.3],
                [-0.3, -0.3],
            ]
        )
    ],
    "crescent": [_crescent()],
    "gear": [_gear(), _disc(0.3)],
    "leaf": [_leaf()],
    "arrow": [
        np.array([[0.0, -1.0], [0.8, -0.1], [0.32, -0.1], [0.32, 0.9], [-0.32, 0.9], [-0.32, -0.1], [-0.8, -0.1]])
    ],
    "flower": [_polar(lambda a: 0.78 + 0.22 * np.cos(6 * a))],
    "drop": [_drop()],
    "frame": [
        np.array([[-0.7, -0.7], [0.7, -0.7], [0.7, 0.7], [-0.7, 0.7]]),
        np.array([[-0.36, -0.36], [0.36, -0.36], [0.36, 0.36], [-0.36, 0.36]]),
    ],
}


def _plain(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    return np.zeros_like(x)


def _striped(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    return (np.sin(9.0 * (x + 0.35 * y) + phase) > 0).astype(np.float32)


def _dotted(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    cell = 0.42
    row = np.floor(y / cell)
    u = (x + phase * 0.05) / cell + 0.5 * (row % 2)
    return (np.hypot(u - np.floor(u) - 0.5, y / cell - row - 0.5) < 0.33).astype(np.float32)


def _chequered(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    cell = 0.4
    return ((np.floor(x / cell + phase * 0.1) + np.floor(y / cell + phase * 0.1)) % 2).astype(np.float32)


def _banded(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    return (np.sin(13.0 * np.hypot(x, y) + phase * 0.25) > 0).astype(np.float32)


def _zigzag(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    wave = np.abs((2.2 * x + phase * 0.1) % 1.0 - 0.5) * 0.6
    return ((2.4 * (y + wave)) % 1.0 > 0.55).astype(np.float32)


def _halved(x: np.ndarray, y: np.ndarray, phase: float) -> np.ndarray:
    return (x > 0.04 * np.sin(phase)).astype(np.float32)


# Each maps coordinates in [-1, 1] and a phase to the share of the second colour.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "chequered": _chequered,
    "banded": _banded,
    "zigzag": _zigzag,
    "halved": _halved,
}


def pattern_colours(colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The main and the second colour, (3,) float32 in [0, 255]: a light second one on dark colours and the reverse."""
    main = np.asarray(colour, dtype=np.float32)
    luminance = float(main @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    second = main * 0.25 + 255.0 * 0.75 if luminance < 130 else main * 0.32
    return main, second.astype(np.float32)


def draw_sprite(shape: str, pattern: str, colour: tuple[int, int, int], *, size: int, phase: float) -> Image.Image:
    """A square RGBA sprite of ``size`` pixels; alpha is the silhouette, the colour fills the whole square.

    The colour is not cut off at the silhouette, so that resampling mixes no foreign colour into the edge.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    x, y = np.meshgrid(axis, axis)
    share = PATTERNS[pattern](x, y, phase)[..., None]
    main, second = pattern_colours(colour)
    rgb = main * (1.0 - share) + second * share
    alpha = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(alpha)
    for index, polygon in enumerate(SHAPES[shape]):
        points = (np.clip(polygon, -1.0, 1.0) * 0.98 + 1.0) * (size / 2.0)
        pen.polygon([tuple(map(float, p)) for p in points], fill=0 if index else 255)
    sprite = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8), "RGB")
    sprite.putalpha(alpha)
    return sprite

"""Backgrounds of the generated dataset: crops of scikit-image's bundled photographs, and procedural textures."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DatasetError

# Those that lie in the wheel itself (no download). Left out: pictures that show discs like our classes (coins) and
# text.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


def photograph_folder() -> Path:
    """Where scikit-image keeps its pictures; found without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DatasetError(
            "the generated dataset takes its backgrounds from scikit-image's bundled photographs; "
            "install it with: pip install scikit-image"
        )
    return Path(spec.origin).parent / "data"


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Image.Image:
    """One photograph, RGB, the longer side at most 700 pixels."""
    path = photograph_folder() / name
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing; this needs scikit-image >= 0.22 installed from its wheel") from error
    image.thumbnail((700, 700), Image.Resampling.LANCZOS)
    return image


def _noise(rng: np.random.Generator, height: int, width: int, *, coarsest: int, octaves: int) -> np.ndarray:
    """Sum of smooth random fields of rising frequency, (height, width) float32 in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        cells = coarsest * 2**octave
        grid = Image.fromarray(rng.random((cells + 1, cells + 1), dtype=np.float32), "F")
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.55**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _palette(rng: np.random.Generator, colours: int) -> np.ndarray:
    """Muted colours, (colours, 3) float32 in [0, 255], from dark to light."""
    base = rng.uniform(60, 190) + rng.uniform(-35, 35, size=(1, 3))
    spread = rng.uniform(-25, 25, size=(colours, 3)) + np.linspace(-55, 55, colours)[:, None]
    return np.clip(base + spread, 5, 250).astype(np.float32)


def _shade(field: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Looks a field in [0, 1] up in a palette with linear interpolation: (H, W, 3) float32."""
    stops = np.linspace(0.0, 1.0, len(palette))
    return np.stack([np.interp(field, stops, palette[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    field = _noise(rng, height, width, coarsest=int(rng.integers(2, 6)), octaves=5)
    return _shade(field, _palette(rng, 4))


def _wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(height, width)
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    warp = _noise(rng, height, width, coarsest=3, octaves=3)
    grain = _noise(rng, height, width, coarsest=24, octaves=2)
    field = 0.5 + 0.5 * np.sin(2 * np.pi * (across * rng.uniform(4, 10) + 2.0 * warp + 0.2 * along))
    return _shade(np.clip(0.7 * field + 0.3 * grain, 0, 1), _palette(rng, 3))


def _tiles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Irregular patches (nearest of random centres) with fine grain and darker joints."""
    count = int(rng.integers(8, 40))
    centres = rng.uniform(0, 1, size=(count, 2)).astype(np.float32) * np.array([height, width], dtype=np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = (y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2
    nearest = np.partition(distance, 1, axis=-1)[..., :2]
    joint = np.sqrt(nearest[..., 1]) - np.sqrt(nearest[..., 0]) < rng.uniform(1.0, 2.5)
    colours = _palette(rng, count)
    tiles = colours[rng.permutation(count)[distance.argmin(axis=-1)]]
    grain = _noise(rng, height, width, coarsest=16, octaves=3)[..., None]
    return tiles * (0.85 + 0.3 * grain) * np.where(joint, 0.6, 1.0)[..., None]


def _photographic(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    source = photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    fit = min(source.width / width, source.height / height)
    scale = fit * rng.uniform(0.45, 1.0)
    crop_w, crop_h = width * scale, height * scale
    left = rng.uniform(0, source.width - crop_w)
    top = rng.uniform(0, source.height - crop_h)
    box = (left, top, left + crop_w, top + crop_h)
    image = source.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    pixels = np.asarray(image, dtype=np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    tint = rng.uniform(0.8, 1.2, size=3).astype(np.float32)
    return pixels * tint


_TEXTURES = (_clouds, _wood, _tiles)


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A background, (height, width, 3) float32 in [0, 255]: a photograph in 65 % of the cases, else a texture."""
    if rng.random() < 0.65:
        pixels = _photographic(rng, height, width)
    else:
        pixels = _TEXTURES[rng.integers(len(_TEXTURES))](rng, height, width)
    contrast = rng.uniform(0.65, 1.05)
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return np.clip((pixels - mean) * contrast + mean * rng.uniform(0.85, 1.15), 0, 255)

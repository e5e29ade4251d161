"""Decoding image files to RGB arrays."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from .errors import UnusableImageError


def read_rgb_image(path: str, *, height: int | None = None, width: int | None = None) -> np.ndarray:
    """Decodes an image file of any colour mode.

    A turned EXIF orientation is followed unless only the stored orientation has the wanted size: boxes drawn on the
    stored pixels come with the stored size.

    Args:
        path: the file.
        height, width: the size that its record gives, in pixels; None accepts any.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable. 16-bit grey values are scaled to 8 bits.

    Raises:
        UnusableImageError: missing, corrupt, or of another size.
    """
    wanted = None if height is None or width is None else (width, height)
    try:
        with Image.open(path) as opened:
            opened.load()
            image: Image.Image = ImageOps.exif_transpose(opened) or opened
            if wanted is not None and image.size != wanted and opened.size == wanted:
                image = opened
            if image.mode.startswith("I"):
                pixels = np.asarray(image).astype(np.int64) // 256
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            rgb = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise UnusableImageError(f'"{path}" does not exist') from error
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise UnusableImageError(f'"{path}" cannot be read as an image ({type(error).__name__}: {error})') from error
    if wanted is not None and (rgb.shape[1], rgb.shape[0]) != wanted:
        raise UnusableImageError(
            f'"{path}" has {rgb.shape[1]} x {rgb.shape[0]} pixels where the json says {width} x {height}'
        )
    return rgb

"""Decoding image files to RGB arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdetr_d2.errors import UnusableImageError

from .opening import opened_image, require_whole

_EXIF_ORIENTATION = 0x0112
_SWAPPED_SIDES = (5, 6, 7, 8)
_BITS = (8, 10, 12, 14, 16, 20, 24, 28, 32)

Size = tuple[int, int]
Pixels = NDArray[np.uint8]


def read_rgb_image(path: str, *, height: int | None = None, width: int | None = None) -> Pixels:
    """Decodes an image file of any colour mode.

    A turned EXIF orientation is followed unless only the stored orientation has the wanted size: boxes drawn on the
    stored pixels come with the stored size. The size is compared before anything is decoded.

    Values of more than 8 bits are scaled to 8: by the fewest bits (8, 10, 12, 14, 16) that hold the brightest one, so
    that what a camera gives in 12 bits of 16 is not black; floats that do not exceed 1 by 255. Transparent pixels are
    what they are on white paper, as where they were annotated, unless the whole image is transparent.

    Args:
        path: the file.
        height, width: the size that its record gives, in pixels; None accepts any.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        UnusableImageError: missing, corrupt, of another size, of more pixels than are decoded (`opened_image`), or with
            values below 0 or not finite.
    """
    wanted = None if height is None or width is None else (width, height)
    try:
        with opened_image(path) as image:
            _require_size(path, image.size, wanted)
            deep = _has_deep_colours(image)  # before the orientation, for which a PNG is decoded
            orientation = _orientation(image)
            size = image.size[::-1] if orientation in _SWAPPED_SIDES else image.size
            follow = wanted is None or size == wanted
            if not follow and image.size != wanted:
                raise _other_size(path, size, wanted)
            pixels = _deep_colours(path) if deep else rgb_of(image, f'"{path}"')
    except UnusableImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise UnusableImageError(f'"{path}" cannot be read as an image ({type(error).__name__}: {error})') from error
    return np.ascontiguousarray(_turned(pixels, orientation) if follow else pixels)


def check_header(path: str, *, height: int, width: int) -> None:
    """Compares the size in an image file's header with the wanted one, in stored or in EXIF-turned orientation.

    Nothing is decoded, but for a file that does not end as its format does.

    Raises:
        UnusableImageError: the header cannot be read, gives another size, or one that is not decoded (`opened_image`);
            or the file was cut short.
    """
    wanted = (width, height)
    try:
        with opened_image(path) as image:
            _require_size(path, image.size, wanted)
            if image.size != wanted and _orientation(image) not in _SWAPPED_SIDES:
                raise _other_size(path, image.size, wanted)
            require_whole(path, image)
    except UnusableImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise UnusableImageError(f'"{path}" cannot be read as an image ({type(error).__name__}: {error})') from error


def _require_size(path: str, size: Size, wanted: Size | None) -> None:
    """Before anything that may decode: a PNG is decoded when it is asked for its orientation."""
    if wanted is not None and wanted not in (size, size[::-1]):
        raise _other_size(path, size, wanted)


def _other_size(path: str, size: Size, wanted: Size | None) -> UnusableImageError:
    assert wanted is not None
    return UnusableImageError(
        f'"{path}" has {size[0]} x {size[1]} pixels where the json says {wanted[0]} x {wanted[1]}'
    )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (ValueError, TypeError, KeyError, SyntaxError, EOFError):  # the pixels may be good where the EXIF is not
        return 1


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """As EXIF says that an image is to be shown."""
    if orientation in (5, 7):
        pixels = pixels.transpose(1, 0, 2)
    turns, mirrored = {2: (0, True), 3: (2, False), 4: (2, True), 6: (-1, False), 7: (2, False), 8: (1, False)}.get(
        orientation, (0, False)
    )
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels


def rgb_of(image: Image.Image, name: str) -> Pixels:
    """The pixels of an image of any mode, as `read_rgb_image` gives them; not turned.

    Raises:
        UnusableImageError: it has values below 0, or not finite; ``name`` begins the message.
    """
    if image.mode.startswith("I") or image.mode == "F":
        grey = _eight_bits(name, np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _on_white(pixels: Pixels) -> Pixels:
    """(H, W, 4) RGBA to RGB."""
    alpha = pixels[:, :, 3:].astype(np.uint16)
    if alpha.min() == 255 or alpha.max() == 0:
        return pixels[:, :, :3].copy()
    return ((pixels[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a colour, of which Pillow reads the upper 8 only."""
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _deep_colours(path: str) -> Pixels:
    import cv2  # Pillow has no mode for these

    values: Any = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise UnusableImageError(f'"{path}" cannot be read as an image of 16 bits a colour; convert it to 8')
    if values.ndim == 2:
        values = values[:, :, None].repeat(3, axis=2)
    colours = _eight_bits(f'"{path}"', values[:, :, 2::-1])
    if values.shape[2] < 4:
        return colours
    alpha = (values[:, :, 3:] >> 8).astype(np.uint8) if values.dtype == np.uint16 else values[:, :, 3:]
    return _on_white(np.concatenate([colours, alpha], axis=2))


def _eight_bits(name: str, values: NDArray[Any]) -> Pixels:
    """Numbers of any kind to uint8, see `read_rgb_image`."""
    if values.dtype == np.uint8:
        return values
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all() or lowest < 0:
        raise UnusableImageError(
            f"{name} has pixels from {lowest:g} to {highest:g}; convert it to values from 0 on, such as 8 bits"
        )
    if values.dtype.kind == "f" and highest <= 1:
        return np.rint(values * 255).astype(np.uint8)
    bits = next((bits for bits in _BITS if highest < 2**bits), None)
    if bits is None:
        raise UnusableImageError(f"{name} has pixels up to {highest:g}; convert it to 8 bits")
    return (
        (values / 2.0 ** (bits - 8)).astype(np.uint8)
        if values.dtype.kind == "f"
        else (values >> (bits - 8)).astype(np.uint8)
    )

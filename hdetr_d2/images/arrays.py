"""Images as people have them, as arrays of one kind."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from hdetr_d2.errors import UnusableImageError, UserError

from .decoding import Pixels, read_rgb_image, rgb_of

ChannelOrder = Literal["rgb", "bgr"]


class ImageInputError(UserError, ValueError):
    """An image that a detector cannot take; the message says what it got and what it takes."""


def pixels_of(image: Any, *, channel_order: ChannelOrder = "rgb") -> Pixels:
    """An image as (H, W, 3) uint8 RGB.

    Args:
        image: a path; a PIL image of any mode (its EXIF orientation is followed), which becomes what its file would;
            or a numpy array, (H, W, 3), (H, W, 1) or (H, W), of uint8, or of floating point in [0, 1].
        channel_order: of arrays with three channels; OpenCV reads ``"bgr"``.

    Raises:
        ImageInputError: anything else.
        DatasetError: a file that cannot be read as an image.
    """
    if channel_order not in get_args(ChannelOrder):
        raise ImageInputError(f'channel_order must be "rgb" or "bgr", not {channel_order!r}')
    if isinstance(image, (str, os.PathLike)):
        return read_rgb_image(os.fspath(image))
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, channel_order)
    raise ImageInputError(
        f"an image must be a path, a PIL image, a numpy array (H, W, 3) or a tensor (3, H, W), not a "
        f"{type(image).__name__}"
    )


def require_pixels(pixels: Any) -> None:
    """Refuse what is no image as `pixels_of` gives it.

    Raises:
        ImageInputError: it is not (H, W, 3) uint8 with at least one pixel.
    """
    if not isinstance(pixels, np.ndarray):
        raise ImageInputError(f"an image must be an array (H, W, 3), not a {type(pixels).__name__}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageInputError(f"an image must be (H, W, 3) of uint8, not {pixels.shape} of {pixels.dtype}")


def _from_pil(image: Image.Image) -> Pixels:
    file = getattr(image, "filename", "")
    name = f'"{file}"' if file else "a PIL image"
    if 0 in image.size:
        raise ImageInputError(f"an image has no pixels: {name} is {image.size[0]} x {image.size[1]}")
    try:
        return rgb_of(ImageOps.exif_transpose(image) or image, name)
    except UnusableImageError:
        raise
    except Exception as error:  # its file is decoded only now, and Pillow's decoders raise many kinds
        raise ImageInputError(f"{name} cannot be read as an image ({type(error).__name__}: {error})") from error


def _from_array(array: npt.NDArray[Any], channel_order: ChannelOrder) -> Pixels:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ImageInputError(f"an array must be (H, W, 3) or (H, W), not {array.shape}")
    if 0 in array.shape:
        raise ImageInputError(f"an image has no pixels: {array.shape}")
    if array.dtype != np.uint8:
        array = _to_bytes(array)
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    elif channel_order == "bgr":
        array = array[..., ::-1]
    return np.ascontiguousarray(array)


def _to_bytes(array: npt.NDArray[Any]) -> Pixels:
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageInputError(f"an array must be uint8, or of floating point in [0, 1], not {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ImageInputError(
            f"an array of floating point must be in [0, 1], and this one is in [{low:g}, {high:g}]; "
            "convert pixel values to uint8"
        )
    return np.asarray(np.rint(array.astype(np.float64) * 255.0), dtype=np.uint8)

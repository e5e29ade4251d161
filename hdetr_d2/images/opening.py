"""Opening image files: what they are, and how large, is known before anything of them is decoded."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from hdetr_d2.errors import DatasetError, UnusableImageError

PIXELS_VARIABLE = "HDETR_D2_MAX_IMAGE_PIXELS"
"""The environment variable that sets another limit than ``MAX_PIXELS``."""
MAX_PIXELS = 178_956_970
"""Pixels of an image that are decoded, unless the variable says otherwise: 512 MiB of RGB, the limit that Pillow has
by default. A file of some kilobytes can declare more, and decoding it takes the memory of all of them."""

_ENDS = {"JPEG": (b"\xff\xd9", 64), "PNG": (b"IEND\xaeB`\x82", 8), "GIF": (b";", 1)}
"""How whole files end, and within how many bytes."""


def max_image_pixels() -> int:
    """The pixels that an image may declare.

    Raises:
        DatasetError: the environment variable is no number of pixels.
    """
    text = os.environ.get(PIXELS_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    try:
        limit = int(text)
    except ValueError:
        limit = 0
    if limit < 1:
        raise DatasetError(f"{PIXELS_VARIABLE}={text!r}: give a number of pixels, such as {MAX_PIXELS}")
    return limit


_PROGRAMS = ("EPS",)
"""Formats that are programs; Pillow has Ghostscript run them."""


class TooManyPixelsError(UnusableImageError):
    """An image that is not decoded because of its size."""


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def irregular(path: str | os.PathLike[str]) -> str | None:
    """What a path is if it is no regular file ("a folder", "a pipe"), else None. Opening a pipe waits for ever.

    Raises:
        OSError, ValueError: there is nothing, or it cannot be asked.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return None
    return next((name for test, name in _KINDS if test(mode)), "no file")


@contextmanager
def opened_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file of which the header has been read and nothing decoded.

    Raises:
        UnusableImageError: it is missing, no file (a folder, a pipe), no image, or a program that draws one.
        TooManyPixelsError: it declares more pixels than `max_image_pixels`.
    """
    name = os.fspath(path)
    limit = max_image_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = (limit + 1) // 2  # Pillow refuses from twice this number on
    _require_file(name)
    try:
        image = Image.open(name)
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error).partition(" exceeds")[0].partition("(")[2].rstrip(")"), limit) from error
    except Exception as error:  # Pillow's plugins raise many kinds on broken files
        raise UnusableImageError(f'"{name}" cannot be read as an image ({type(error).__name__}: {error})') from error
    with image:
        if image.format in _PROGRAMS:
            raise UnusableImageError(f'"{name}" is a program in PostScript, which is not run; convert it to PNG')
        if image.width * image.height > limit:
            raise _too_large(name, f"{image.width} x {image.height} pixels", limit)
        yield image


def require_whole(path: str, image: Image.Image) -> None:
    """Refuse a file that was cut short; one that does not end as its format ends is decoded to see.

    Args:
        image: the file, opened.

    Raises:
        OSError, SyntaxError, ValueError: Pillow's, of a file that cannot be decoded.
    """
    if image.format in _ENDS:
        end, within = _ENDS[image.format]
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - within))
            if end in file.read():
                return
        image.load()


def _require_file(path: str) -> None:
    try:
        kind = irregular(path)
    except FileNotFoundError as error:
        raise UnusableImageError(f'"{path}" does not exist') from error
    except (OSError, ValueError) as error:
        raise UnusableImageError(f'"{path}" cannot be read ({error})') from error
    if kind is not None:
        raise UnusableImageError(f'"{path}" is {kind}, not an image file')


def _too_large(path: str, size: str, limit: int) -> TooManyPixelsError:
    return TooManyPixelsError(
        f'"{path}" says that it has {size}, more than the {limit} that are decoded; if that is right, cut the image '
        f"into tiles or set the environment variable {PIXELS_VARIABLE}"
    )

"""Images as arrays: files of every kind, PIL images and arrays. Needs numpy and Pillow alone."""

from .arrays import ChannelOrder, ImageInputError, pixels_of, require_pixels
from .decoding import Pixels, check_header, read_rgb_image
from .opening import irregular, opened_image

__all__ = [
    "ChannelOrder",
    "ImageInputError",
    "Pixels",
    "check_header",
    "irregular",
    "opened_image",
    "pixels_of",
    "read_rgb_image",
    "require_pixels",
]

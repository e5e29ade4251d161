"""Images in memory become what their files would."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdetr_d2.errors import UserError
from hdetr_d2.images import ImageInputError, pixels_of, require_pixels

GRADIENT = np.linspace(0, 255, 48 * 60).reshape(48, 60).astype(np.uint8)


def pictures() -> dict[str, Image.Image]:
    """One of each mode that files have."""
    grey = Image.fromarray(GRADIENT)
    colours = Image.merge("RGB", (grey, grey.rotate(180), grey.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    transparent = colours.copy()
    transparent.putalpha(grey)
    return {
        "1.png": grey.convert("1"),
        "L.png": grey,
        "LA.png": transparent.convert("LA"),
        "P.png": colours.quantize(16),
        "RGBA.png": transparent,
        "I;16.png": Image.fromarray(GRADIENT.astype(np.uint16) * 256),
        "F.tif": Image.fromarray(GRADIENT.astype(np.float32) / 255),
        "CMYK.tif": colours.convert("CMYK"),
        "LAB.tif": colours.convert("LAB"),
    }


@pytest.mark.parametrize("name", pictures())
def test_a_pil_image_of_any_mode_is_what_its_file_is(name: str, tmp_path: Path) -> None:
    image = pictures()[name]
    image.save(tmp_path / name)
    expected = pixels_of(tmp_path / name)
    np.testing.assert_array_equal(pixels_of(Image.open(tmp_path / name)), expected)
    np.testing.assert_array_equal(pixels_of(image), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_pil_image_is_what_its_file_is(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures()["P.png"].convert("RGB").save(tmp_path / "turned.png", exif=exif)
    expected = pixels_of(tmp_path / "turned.png")
    np.testing.assert_array_equal(pixels_of(Image.open(tmp_path / "turned.png")), expected)


def test_pil_images_that_cannot_be_read_are_told() -> None:
    file = io.BytesIO()
    Image.fromarray(GRADIENT).save(file, "JPEG")
    half = Image.open(io.BytesIO(file.getvalue()[:-40]))
    below = Image.fromarray(np.full((4, 4), -1, np.float32))
    for image, message in (
        (Image.new("RGB", (0, 5)), "has no pixels"),
        (half, "a PIL image cannot be read as an image"),
        (below, "a PIL image has pixels from -1"),
    ):
        with pytest.raises(UserError, match=message):
            pixels_of(image)


def test_an_order_of_channels_that_is_none_is_refused() -> None:
    with pytest.raises(ImageInputError, match='"rgb" or "bgr"'):
        pixels_of(np.zeros((4, 4, 3), np.uint8), channel_order="rbg")


def test_only_arrays_as_they_are_given_are_pixels() -> None:
    require_pixels(pixels_of(np.zeros((4, 4))))
    for other in (None, np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageInputError, match="an image must be"):
            require_pixels(other)

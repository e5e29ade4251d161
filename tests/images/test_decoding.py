"""Pictures of every kind become what a viewer shows, or are refused by name, before they cost anything."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from hdetr_d2.data import DatasetError, UnusableImageError, read_rgb_image
from hdetr_d2.images import check_header

GRADIENT = np.linspace(0, 1, 24).reshape(4, 6)


def saved(folder: Path, pixels: np.ndarray, name: str = "a.png") -> str:
    path = folder / name
    if pixels.ndim == 3 and pixels.dtype == np.uint16:
        assert cv2.imwrite(str(path), pixels)  # Pillow cannot write 16 bits a colour; grey is the same either way round
    else:
        Image.fromarray(pixels).save(path)
    return str(path)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_of_any_depth_in_sixteen_bits_is_as_bright_as_it_was(
    tmp_path: Path, bits: int, name: str, channels: int
) -> None:
    values = np.round(GRADIENT * (2**bits - 1)).astype(np.uint16)
    if channels == 3:
        values = np.stack([values] * 3, axis=2)
    pixels = read_rgb_image(saved(tmp_path, values, name))
    assert pixels.shape == (4, 6, 3)
    assert np.abs(pixels[:, :, 0] / 255 - GRADIENT).max() < 0.01
    assert (pixels == pixels[:, :, :1]).all()


def test_colours_of_sixteen_bits_are_in_order(tmp_path: Path) -> None:
    bgr = np.zeros((4, 6, 3), dtype=np.uint16)
    bgr[:, :, 2], bgr[:, :, 1] = 4095, 2048  # 12 bits, red with half of green
    assert read_rgb_image(saved(tmp_path, bgr))[0, 0].tolist() == [255, 128, 0]
    alpha = np.full((4, 6, 1), 65535, dtype=np.uint16)
    assert read_rgb_image(saved(tmp_path, np.concatenate([bgr * 16, alpha], axis=2), "b.png"))[0, 0].tolist() == [
        255, 128, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 255.0, 4095.0, 65535.0])
def test_floats_are_as_bright_as_they_were(tmp_path: Path, scale: float) -> None:
    pixels = read_rgb_image(saved(tmp_path, (GRADIENT * scale).astype(np.float32), "a.tif"))
    assert np.abs(pixels[:, :, 0] / 255 - GRADIENT).max() < 0.01


def test_integers_of_thirty_two_bits_are_as_bright_as_they_were(tmp_path: Path) -> None:
    values = np.round(GRADIENT * 4095).astype(np.int32)
    pixels = read_rgb_image(saved(tmp_path, values, "a.tif"))
    assert np.abs(pixels[:, :, 0] / 255 - GRADIENT).max() < 0.01


@pytest.mark.parametrize(
    "values", [np.float32([[0.5, np.nan]]), np.float32([[0.5, np.inf]]), np.float32([[-0.5, 1]]), np.int32([[-9, 5]])]
)
def test_numbers_that_are_no_brightness_are_refused_by_name(tmp_path: Path, values: Any) -> None:
    with pytest.raises(UnusableImageError, match=r'a\.tif" has pixels from'):
        read_rgb_image(saved(tmp_path, values, "a.tif"))


@pytest.mark.parametrize("value", [0, 255, 65535])
def test_one_brightness_alone_is_kept(tmp_path: Path, value: int) -> None:
    pixels = read_rgb_image(saved(tmp_path, np.full((2, 3), value, dtype=np.uint16)))
    assert (pixels == (255 if value else 0)).all()


def test_what_is_transparent_is_white_as_on_paper(tmp_path: Path) -> None:
    rgba = np.zeros((2, 3, 4), dtype=np.uint8)
    rgba[:, :, 0] = 200
    rgba[0, :, 3] = (0, 255, 51)
    rgba[1, :, 3] = 255
    pixels = read_rgb_image(saved(tmp_path, rgba))
    assert pixels[0].tolist() == [[255, 255, 255], [200, 0, 0], [244, 204, 204]]
    assert pixels[1].tolist() == [[200, 0, 0]] * 3
    rgba[:, :, 3] = 0  # nobody has seen anything: a file whose alpha means nothing
    assert read_rgb_image(saved(tmp_path, rgba))[0].tolist() == [[200, 0, 0]] * 3


def test_palettes_have_their_colours_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([9, 9, 9, 250, 20, 30])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=0)
    assert read_rgb_image(str(tmp_path / "a.png"))[0, :2].tolist() == [[9, 9, 9], [250, 20, 30]]
    assert read_rgb_image(str(tmp_path / "b.png"))[0, :2].tolist() == [[255, 255, 255], [250, 20, 30]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path: Path, orientation: int, mode: str) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(values).convert("RGB") if mode == "RGB" else Image.fromarray(values.astype(np.uint16))
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_rgb_image(str(tmp_path / "a.png"))
    assert np.array_equal(pixels[:, :, 0], as_seen(values, orientation))
    if mode == "RGB":
        with Image.open(tmp_path / "a.png") as opened:
            assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(opened)))


def as_seen(values: np.ndarray, orientation: int) -> np.ndarray:
    """As the EXIF standard words it: where row 0 and column 0 are to be seen."""
    turned = values.T if orientation >= 5 else values
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned


def bomb(path: Path, width: int, height: int) -> str:
    """A PNG of zeros that is small as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pack = zlib.compressobj(1)
    row = bytes(1 + 3 * width)
    data = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return str(path)


@pytest.mark.parametrize("read", [read_rgb_image, check_header])
def test_a_file_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    path = bomb(tmp_path / "a.png", 6000, 100)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(UnusableImageError, match="has 6000 x 100 pixels where the json says 60 x 10"):
        read(path, height=10, width=60)


def declared(path: Path, width: int, height: int) -> str:
    """A PNG that has nothing but a header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    return str(path)


@pytest.mark.parametrize("side", [13_400, 100_000])
def test_a_file_that_declares_too_many_pixels_is_refused_by_name_even_if_its_record_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    path = declared(tmp_path / "a.png", side, side)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    for read, size in ((read_rgb_image, side), (check_header, side), (read_rgb_image, None)):
        with pytest.raises(UnusableImageError, match=r'a\.png" says that it has .* pixels, more than the 178956970'):
            read(path, height=size, width=size)


@pytest.mark.parametrize("of_pillow", [None, 100, 89_478_485])
def test_how_many_pixels_are_too_many_is_the_users_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_pillow: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", of_pillow)  # as another library may have set it
    path = saved(tmp_path, np.zeros((30, 20, 3), dtype=np.uint8))
    monkeypatch.setenv("HDETR_D2_MAX_IMAGE_PIXELS", "599")
    with pytest.raises(UnusableImageError, match=r"has .* pixels, more than the 599 .*HDETR_D2_MAX_IMAGE_PIXELS"):
        read_rgb_image(path)
    monkeypatch.setenv("HDETR_D2_MAX_IMAGE_PIXELS", "600")
    assert read_rgb_image(path).shape == (30, 20, 3)
    check_header(path, height=30, width=20)


@pytest.mark.parametrize("text", ["many", "-5", "0", "1e9"])
def test_a_limit_that_is_no_number_of_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HDETR_D2_MAX_IMAGE_PIXELS", text)
    with pytest.raises(DatasetError, match=r"HDETR_D2_MAX_IMAGE_PIXELS=.*give a number of pixels"):
        check_header(saved(tmp_path, np.zeros((3, 3, 3), dtype=np.uint8)), height=3, width=3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif"])
def test_a_file_that_was_cut_short_is_seen_before_it_is_needed(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    path = Path(saved(tmp_path, noise, name))
    check_header(str(path), height=40, width=30)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnusableImageError, match="cannot be read as an image"):
        check_header(str(path), height=40, width=30)
    path.write_bytes(whole + b"what a camera appends" * 9)
    check_header(str(path), height=40, width=30)


@pytest.mark.parametrize("read", [read_rgb_image, check_header])
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, read: Any, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    start = time.monotonic()
    with pytest.raises(UnusableImageError, match=rf'a\.png" is {kind}, not an image file'):
        read(str(path), height=3, width=3)
    assert time.monotonic() - start < 60


def test_a_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0")
    assert read_rgb_image(str(tmp_path / "a.jpg"), height=4, width=6).shape == (4, 6, 3)

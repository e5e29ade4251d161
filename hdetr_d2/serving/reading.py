"""What clients send: read within limits of size and time, decoded within a limit of pixels."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from hdetr_d2.errors import UnusableImageError
from hdetr_d2.images import Pixels, opened_image, read_rgb_image
from hdetr_d2.images.opening import TooManyPixelsError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of a request.

    Args:
        bytes: of its image file.
        pixels: of the image.
        upload_seconds: until all of it is there.
        seconds: until it is answered, from then on.
    """

    bytes: int
    pixels: int
    upload_seconds: float
    seconds: float


_DISCARDED = 4
"""How many times as many bytes as allowed are read of a file that is too large: a client that is still sending would
not see the answer."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: 413 of one that is too large, 408 of one that takes too long, 400 of one that ends early, 415 of
            a form.
    """
    declared = request.headers.get("content-length", "0")
    hopeless = declared.isdigit() and int(declared) > _DISCARDED * limits.bytes
    try:
        body = b"" if hopeless else await asyncio.wait_for(_read(request, limits), limits.upload_seconds)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the file was not there after {limits.upload_seconds:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the file ends early") from None
    if hopeless or len(body) > limits.bytes:
        raise HTTPException(413, f"the file has more than {limits.bytes:,} bytes")
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise HTTPException(415, "the body is a form; send the bytes of the image alone (curl --data-binary @FILE)")
    return body


async def _read(request: Request, limits: Limits) -> bytes:
    """The body, or as much of it as shows that it is too large; the rest is read, and kept nowhere."""
    body, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if len(body) <= limits.bytes:
            body += part
        if size > _DISCARDED * limits.bytes:
            break
    return bytes(body)


def decode(content: bytes, limits: Limits) -> Pixels:
    """An image file as (H, W, 3) uint8 RGB.

    Raises:
        HTTPException: 415 of what is no image, 413 of one with too many pixels.
    """
    if not content:
        raise HTTPException(400, "the body is empty; send the bytes of an image file")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(content)
        try:
            with opened_image(path) as image:
                width, height = image.size
            if width * height > limits.pixels:
                raise HTTPException(413, f"the image has {width} x {height} pixels, more than {limits.pixels:,}")
            return read_rgb_image(str(path))
        except TooManyPixelsError:
            raise HTTPException(413, f"the image has more than {limits.pixels:,} pixels") from None
        except UnusableImageError as error:
            said = str(error).replace(f'"{path}"', "the body").replace(str(path), "the body")
            raise HTTPException(415, said) from None

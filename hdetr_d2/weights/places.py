"""Where a file of weights may be: a path, ``file://``, ``http(s)://``, or ``hf://owner/repository``."""

from __future__ import annotations

import hashlib
import os
import posixpath
import urllib.parse
import urllib.request
from pathlib import Path

from hdetr_d2.errors import UserError

from .checksums import verify
from .download import download
from .hub import HUB, file_of_hub

_FILE, _WEB = "file://", ("http://", "https://")


class AddressError(UserError, ValueError):
    """An address that names no file; the message says how one is written."""


def is_address(source: str) -> bool:
    """Whether `local_file` does more with it than take it for a path."""
    return source.startswith((_FILE, HUB, *_WEB))


def local_file(source: str, folder: Path) -> Path:
    """A file on this machine for what a user named; an address is downloaded once, for naming it is asking for it.

    Args:
        source: a path, ``file://``, ``http(s)://``, or ``hf://owner/repository[@revision][/file]``.
        folder: where downloads go; those of Hugging Face's hub go to its own cache.

    Returns:
        Its path; a plain path is given back as it is, whether it exists or not.

    Raises:
        AddressError: the address names no file.
        DownloadError: it cannot be had.
        ChecksumError: it was downloaded before and has changed since.
    """
    if source.startswith(HUB):
        return file_of_hub(source)
    if source.startswith(_FILE):
        parts = urllib.parse.urlsplit(source)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise AddressError(f"{source}: names no file of this machine; write file:///folder/file.pth")
        return Path(urllib.request.url2pathname(parts.path))
    if source.startswith(_WEB):
        parts = urllib.parse.urlsplit(source)
        name = posixpath.basename(urllib.parse.unquote(parts.path))
        if not parts.netloc or not name:
            raise AddressError(f"{source}: names no file; write https://host/folder/file.pth")
        path = folder / "addresses" / hashlib.sha256(source.encode()).hexdigest()[:12] / name
        if path.is_file():
            verify(path)
            return path
        return download(source, path)
    return Path(os.path.expanduser(source))

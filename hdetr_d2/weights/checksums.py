"""Whether a file is what it was when it was first used, or what its publishers say it is."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import IO

from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.output import write_atomically


class ChecksumError(CheckpointError):
    """A file is not what it should be; the message names both checksums and what to do."""


def sha256_of(path: Path) -> str:
    """In hex; reads the whole file, 0.1 s for 100 MB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def kept_at(path: Path) -> Path:
    """Where the checksum of a file is kept, in the format of the program sha256sum."""
    return path.with_name(f"{path.name}.sha256")


def kept_sha256(path: Path) -> str | None:
    """The checksum that is kept of a file, which itself may be gone; None where none is."""
    beside = kept_at(path)
    if not beside.is_file():
        return None
    found = re.match(r"([0-9a-f]{64})\b", beside.read_text(encoding="utf-8", errors="replace").strip().lower())
    return found.group(1) if found else None


def verify(path: Path, *, sha256: str | None = None, size: int | None = None) -> str:
    """Compare a file with what was published of it, or else with what it was on its first use here.

    Args:
        path: of the file. Where nothing was published, its checksum is kept beside it on first use.
        sha256: as published, in hex.
        size: as published, in bytes.

    Returns:
        Its checksum.

    Raises:
        ChecksumError: it is another file, naming both.
    """
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        raise ChecksumError(
            f"{path}: it has {found_size} bytes, the published file {size}; delete it and download it again"
        )
    found = sha256_of(path)
    if sha256 is not None:
        if found != sha256.lower():
            raise ChecksumError(
                f"{path}: its sha256 is {found}, not the published file's {sha256}; delete it and download it again"
            )
        return found
    kept = kept_sha256(path)
    if kept is not None and kept != found:
        raise ChecksumError(
            f"{path}: its sha256 is {found}, not the {kept} of its first use: it has changed since. Delete both it and "
            f"{kept_at(path).name} and download it again; if it was changed on purpose, delete the latter alone"
        )
    if kept is None:
        keep(path, found)
    return found


def keep(path: Path, sha256: str) -> None:
    """Write a file's checksum beside it, where the folder allows that."""

    def write(file: IO[bytes]) -> None:
        file.write(f"{sha256}  {path.name}\n".encode())

    try:
        write_atomically(str(kept_at(path)), write)
    except OSError:  # a shared folder that may only be read: the file is used without the comparison
        return

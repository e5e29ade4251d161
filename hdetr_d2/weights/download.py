"""A file from an address: resumable, checked, and whole or not there at all."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from hdetr_d2.errors import UserError
from hdetr_d2.progress import bytes_progress

from .checksums import ChecksumError, keep, sha256_of

TIMEOUT = 30.0
"""Seconds without a byte, after which a connection is given up."""
ATTEMPTS = 5
"""Connections in a row that may end early without a byte more."""
PAUSE = 1.0
"""Seconds before the second connection; twice as long before each further one."""
LOCK_TIMEOUT = 4 * 3600.0
"""Seconds to wait for another process that downloads the same file."""

_BLOCK = 1 << 18
_AGENT = "hdetr-d2"


class DownloadError(UserError, OSError):
    """A file could not be downloaded; the message has the address, and where to put the file by hand."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is downloaded.

    Args:
        url: its address.
        path: where it goes.
        size: in bytes, where it was published.
        sha256: in hex, where it was published.
    """

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def record(self) -> Path:
        """What the part is a part of."""
        return self.path.with_name(f"{self.path.name}.part.json")

    @property
    def by_hand(self) -> str:
        """The end of a message: how to do without."""
        return f"download {self.url} elsewhere and put it at {self.path}"


def download(url: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> Path:
    """Download a file, unless it is there.

    What came of an earlier try is gone on with, where the server says that it is the same file. Of several processes
    that want the same file one downloads it, and the others wait.

    Args:
        url: http or https; redirects are followed, and proxies are those of the environment.
        path: where it goes; its folder is made. Until it is whole and checked it is ``<path>.part``.
        size: in bytes, where it was published.
        sha256: in hex, where it was published; else it is taken now, and kept in ``<path>.sha256``.

    Returns:
        ``path``.

    Raises:
        DownloadError: no connection, no such file, no room, or another file.
    """
    wanted = Wanted(url=url, path=path, size=size, sha256=sha256)
    with _told(wanted):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT):
            if not path.is_file():
                _fetch(wanted)
                _finish(wanted)
    return path


def _fetch(wanted: Wanted) -> None:
    """Connect until all has come."""
    fruitless = 0
    while True:
        before = _size_of(wanted.part)
        if _receive(wanted):
            return
        fruitless = 0 if _size_of(wanted.part) > before else fruitless + 1
        if fruitless >= ATTEMPTS:
            raise DownloadError(
                f"{wanted.url}: the connection ended {ATTEMPTS} times before the file did; what came is kept: "
                "try again later"
            )
        time.sleep(PAUSE * 2**fruitless)


def _receive(wanted: Wanted) -> bool:
    """One connection; whether all has come."""
    held = _resumable(wanted)
    try:
        response = _open(wanted, held)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not held:
            raise
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole is not None and int(whole.group(1)) == held:
            return True
        _forget(wanted)
        return False
    with response:
        start, total = _extent(response, held)
        _check_answer(wanted, response, total)
        _note(wanted, response)
        with open(wanted.part, "r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            end = _copy(response, file, wanted, start, total)
    return total is None or end >= total


def _open(wanted: Wanted, held: int) -> Any:
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if held:
        headers["Range"] = f"bytes={held}-"
        validator = _noted(wanted).get("validator")
        if validator:
            headers["If-Range"] = validator
    return urllib.request.urlopen(urllib.request.Request(wanted.url, headers=headers), timeout=TIMEOUT)


def _extent(response: Any, held: int) -> tuple[int, int | None]:
    """Where the body begins in the file, and how long the file is, where the server says it."""
    if response.status == http.client.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is not None and int(found.group(1)) == held:
            return held, None if found.group(2) == "*" else int(found.group(2))
        raise DownloadError(f"the server sent another part of the file than was asked for ({response.url})")
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None and length.isdigit() else None


def _check_answer(wanted: Wanted, response: Any, total: int | None) -> None:
    """Refuse before the download what cannot be the file."""
    if response.headers.get_content_type() == "text/html":
        _forget(wanted)
        raise DownloadError(f"{wanted.url}: answers with a web page and not with the file; {wanted.by_hand}")
    if wanted.size is not None and total is not None and total != wanted.size:
        _forget(wanted)
        raise DownloadError(
            f"{wanted.url}: has {total} bytes, and the published file {wanted.size}: it is another file; get the "
            f"published one from its authors and put it at {wanted.path}"
        )


def _copy(response: Any, file: IO[bytes], wanted: Wanted, start: int, total: int | None) -> int:
    """What comes, into the file; how long it is then. A connection that is cut ends it without an error."""
    end = start
    with bytes_progress(what=f"downloading {wanted.path.name}", done=start, total=total or wanted.size) as tell:
        while True:
            try:
                block = response.read(_BLOCK)
            except (http.client.IncompleteRead, ConnectionError, TimeoutError):
                break
            if not block:
                break
            file.write(block)
            end += len(block)
            tell(len(block))
    return end


def _finish(wanted: Wanted) -> None:
    """Check what came, and give it its name."""
    size = _size_of(wanted.part)
    found = sha256_of(wanted.part)
    wrong = ""
    if wanted.size is not None and size != wanted.size:
        wrong = f"has {size} bytes, and the published file {wanted.size}"
    elif wanted.sha256 is not None and found != wanted.sha256.lower():
        wrong = f"has the sha256 {found}, and the published file {wanted.sha256}"
    if wrong:
        _forget(wanted)
        raise WrongFileError(
            f"{wanted.url}: what came {wrong}; it is deleted. Try again, or get the published file from its authors "
            f"and put it at {wanted.path}"
        )
    if wanted.sha256 is None:
        keep(wanted.path, found)
    os.replace(wanted.part, wanted.path)
    wanted.record.unlink(missing_ok=True)


class WrongFileError(DownloadError, ChecksumError):
    """What came is not what was published."""


def _resumable(wanted: Wanted) -> int:
    """How many bytes of an earlier try can be gone on with: those of this address, if the file can be told again."""
    held = _size_of(wanted.part)
    noted = _noted(wanted)
    known = bool(noted.get("validator")) or wanted.sha256 is not None
    if not held or noted.get("url") != wanted.url or not known:
        _forget(wanted)
        return 0
    return held


def _note(wanted: Wanted, response: Any) -> None:
    """Write down what the part is a part of, by what the server calls this state of the file."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    wanted.record.write_text(json.dumps({"url": wanted.url, "validator": validator}), encoding="utf-8")


def _noted(wanted: Wanted) -> dict[str, str]:
    try:
        content = json.loads(wanted.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _forget(wanted: Wanted) -> None:
    wanted.part.unlink(missing_ok=True)
    wanted.record.unlink(missing_ok=True)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def _told(wanted: Wanted) -> Iterator[None]:
    """What goes wrong, in one line."""
    try:
        yield
    except UserError:
        raise
    except urllib.error.HTTPError as error:
        raise DownloadError(
            f"{wanted.url}: the server answers {error.code} {error.reason}; look whether the file has moved, and put "
            f"it at {wanted.path}"
        ) from error
    except urllib.error.URLError as error:
        raise DownloadError(f"{wanted.url}: no connection ({_reason(error)}); {wanted.by_hand}") from error
    except Timeout as error:
        raise DownloadError(
            f"{wanted.path}: another process has been downloading it for {LOCK_TIMEOUT / 3600:.0f} hours; end it, or "
            f"delete {wanted.path}.lock"
        ) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise DownloadError(
            f"{wanted.url}: no connection ({error or type(error).__name__}); {wanted.by_hand}"
        ) from error
    except ValueError as error:
        raise DownloadError(f"{wanted.url}: is no address to download from ({error})") from error
    except OSError as error:
        raise DownloadError(
            f"{wanted.path}: cannot be written ({error.strerror or error}); HDETR_D2_CACHE names another folder"
        ) from error


def _reason(error: urllib.error.URLError) -> str:
    reason = error.reason
    return reason.strerror or str(reason) if isinstance(reason, OSError) else str(reason)

"""Files from a server on this machine, with the faults that servers and connections have."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import multiprocessing
import os
import socket
import sys
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from hdetr_d2.errors import UserError
from hdetr_d2.weights import ChecksumError, DownloadError, download, verify
from tests.weights.server import Server

CONTENT = os.urandom(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
module = sys.modules["hdetr_d2.weights.download"]  # the package has the function under this name


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


def held(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    assert isinstance(error, UserError)
    return message


def test_a_file_comes_whole_and_its_checksum_is_kept(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    path = download(f"{server.url}/w.pth", tmp_path / "new" / "w.pth")
    assert path.read_bytes() == CONTENT
    assert held(path.parent) == {"w.pth", "w.pth.sha256"}
    assert verify(path) == SHA256
    download(f"{server.url}/w.pth", path)
    assert len(server.requests) == 1  # what is there is not asked for again


def test_a_connection_that_is_cut_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    server.cut = [300_000, 100_000]
    path = download(f"{server.url}/w.pth", tmp_path / "w.pth", sha256=SHA256, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=300000-", "bytes=400000-"]
    assert held(tmp_path) == {"w.pth"}


def test_an_earlier_try_is_gone_on_with(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/w.pth"] = CONTENT
    server.cut = [400_000] + [0] * 9
    with pytest.raises(DownloadError, match="ended .* before the file did") as caught:
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    one_line(caught.value)
    assert (tmp_path / "w.pth.part").stat().st_size == 400_000
    server.cut, before = [], len(server.requests)
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests[before:]] == ["bytes=400000-"]


def test_a_file_that_changed_between_two_tries_is_not_mixed(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    server.cut = [400_000] + [0] * 9
    with pytest.raises(DownloadError):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    server.cut, server.tag = [], '"two"'
    server.files["/w.pth"] = other = CONTENT[::-1]
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == other


@pytest.mark.parametrize("fault", ["no ranges", "no tag", "another address"])
def test_what_cannot_be_gone_on_with_begins_anew(server: Server, tmp_path: Path, fault: str) -> None:
    server.files["/w.pth"] = server.files["/other.pth"] = CONTENT
    if fault == "no tag":
        server.tag = ""
    server.cut = [400_000] + [0] * 9
    with pytest.raises(DownloadError):
        download(f"{server.url}/{'other' if fault == 'another address' else 'w'}.pth", tmp_path / "w.pth")
    server.cut, server.ranges = [], fault != "no ranges"
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_part_that_is_the_whole_file_is_taken(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    (tmp_path / "w.pth.part.json").write_text(json.dumps({"url": f"{server.url}/w.pth", "validator": '"one"'}))
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_begins_anew(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"more")
    (tmp_path / "w.pth.part.json").write_text(json.dumps({"url": f"{server.url}/w.pth", "validator": '"one"'}))
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_length_that_is_not_told_is_no_hindrance(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    server.length = False
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.files["/there.pth"] = CONTENT
    server.redirects["/here.pth"] = "/there.pth"
    server.cut = [1000]
    assert download(f"{server.url}/here.pth", tmp_path / "w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("published", [{"sha256": "0" * 64}, {"size": 5}, {"size": len(CONTENT) + 1}])
@pytest.mark.parametrize("length", [True, False])
def test_another_file_than_the_published_is_refused_and_not_kept(
    server: Server, tmp_path: Path, published: dict[str, Any], length: bool
) -> None:
    server.files["/w.pth"] = CONTENT
    server.length = length
    with pytest.raises(DownloadError) as caught:
        download(f"{server.url}/w.pth", tmp_path / "w.pth", **published)
    message = one_line(caught.value)
    assert f"{server.url}/w.pth" in message and str(tmp_path / "w.pth") in message
    assert held(tmp_path) == set()


def test_a_web_page_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = b"<html>sign in</html>"
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="answers with a web page"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert held(tmp_path) == set()


def test_a_missing_file_is_told_with_its_address_and_its_place(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404") as caught:
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    message = one_line(caught.value)
    assert f"{server.url}/w.pth" in message and str(tmp_path / "w.pth") in message


def test_a_refused_connection_is_told_with_its_address_and_its_place(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/w.pth"
        with pytest.raises(DownloadError, match="no connection") as caught:
            download(url, tmp_path / "w.pth")
    message = one_line(caught.value)
    assert url in message and str(tmp_path / "w.pth") in message


@pytest.mark.parametrize(
    "fault",
    [
        URLError(socket.gaierror(-3, "Temporary failure in name resolution")),
        URLError(TimeoutError("timed out")),
        TimeoutError("timed out"),
        http.client.BadStatusLine("nonsense"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_every_fault_of_a_connection_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise fault

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(DownloadError, match="no connection") as caught:
        download("https://example.org/w.pth", tmp_path / "w.pth")
    assert "https://example.org/w.pth" in one_line(caught.value)


def test_a_connection_that_fails_in_the_middle_is_gone_on_with(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        status, url, headers = 200, "", Message()

        def read(self, size: int | None = -1) -> bytes:
            block = super().read(1000)
            if not block:
                raise ConnectionResetError(104, "Connection reset by peer")
            return block

    server.files["/w.pth"] = CONTENT
    real = module.urllib.request.urlopen
    Broken.headers["ETag"] = server.tag
    Broken.headers["Content-Length"] = str(len(CONTENT))
    answers = [lambda *args, **options: Broken(CONTENT[:5000]), real]
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: answers.pop(0)(*args, **options))
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=5000-"]


@pytest.mark.parametrize("url", ["nothing", "unknown://host/w.pth", "http://"])
def test_what_is_no_address_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError) as caught:
        download(url, tmp_path / "w.pth")
    assert url in one_line(caught.value)


def test_a_folder_that_cannot_be_made_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written .* HDETR_D2_CACHE") as caught:
        download(f"{server.url}/w.pth", tmp_path / "file" / "w.pth")
    one_line(caught.value)


def _download(url: str, path: str, start: Any) -> None:
    start.wait()
    download(url, Path(path))


def test_of_two_processes_one_downloads(server: Server, tmp_path: Path) -> None:
    server.files["/w.pth"] = CONTENT
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    both = [
        context.Process(target=_download, args=(f"{server.url}/w.pth", str(tmp_path / "w.pth"), start)) for _ in "12"
    ]
    for process in both:
        process.start()
    start.wait()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_file_that_changed_since_its_first_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTENT)
    assert verify(path) == SHA256
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ChecksumError, match=f"not the {SHA256} of its first use"):
        verify(path)
    (tmp_path / "w.pth.sha256").unlink()
    verify(path)


def test_plain_lines_say_how_far_it_is(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["/w.pth"] = CONTENT
    download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert "downloading w.pth: 700.0 kB of 700.0 kB" in capsys.readouterr().err

"""Addresses, and who may download."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from hdetr_d2.weights import (
    AddressError,
    ChecksumError,
    DownloadError,
    allow_downloads,
    is_address,
    local_file,
    may_download,
)
from tests.weights.server import Server


def test_paths_and_addresses_of_files_are_this_machines(tmp_path: Path) -> None:
    assert local_file("run/model.pth", tmp_path) == Path("run/model.pth")
    assert local_file("~/model.pth", tmp_path) == Path.home() / "model.pth"
    named = tmp_path / "a model.pth"
    assert local_file(named.as_uri(), tmp_path) == named
    assert not is_address("run/model.pth") and not is_address("detectron2://model.pkl")
    assert all(is_address(f"{scheme}://a/b") for scheme in ("file", "http", "https", "hf"))


@pytest.mark.parametrize("source", ["file://elsewhere/w.pth", "file://", "http://host", "https://host/folder/"])
def test_an_address_that_names_no_file_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match=source):
        local_file(source, tmp_path)


def test_an_address_is_downloaded_once_and_compared_afterwards(server: Server, tmp_path: Path) -> None:
    server.files["/a/w.pth?v=1"] = b"one"
    server.files["/b/w.pth"] = b"two"
    first = local_file(f"{server.url}/a/w.pth?v=1", tmp_path)
    second = local_file(f"{server.url}/b/w.pth", tmp_path)
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert local_file(f"{server.url}/b/w.pth", tmp_path) == second
    assert len(server.requests) == 2
    second.write_bytes(b"six")
    with pytest.raises(ChecksumError, match="first use"):
        local_file(f"{server.url}/b/w.pth", tmp_path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "allowed"), [("y\n", True), ("yes\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_on_a_terminal_the_user_is_asked(answer: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.delenv("HDETR_D2_DOWNLOAD", raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", shown)
    assert may_download("w.pth from there") is allowed
    assert shown.getvalue() == "Download w.pth from there? [y/N] "
    monkeypatch.setenv("HDETR_D2_DOWNLOAD", "0")
    assert not may_download("w.pth")
    monkeypatch.setenv("HDETR_D2_DOWNLOAD", "1")
    assert may_download("w.pth")
    assert not may_download("w.pth", False)


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDETR_D2_DOWNLOAD", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert not may_download("w.pth")
    with allow_downloads():
        assert may_download("w.pth")
    assert not may_download("w.pth")


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/", "hf://owner/na me"])
def test_what_is_no_model_of_the_hub_is_refused(address: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(DownloadError, match="is no model of the hub"):
        local_file(address, tmp_path)

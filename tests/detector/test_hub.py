"""Models of Hugging Face's hub, which a server on this machine plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hdetr_d2 import Detector
from hdetr_d2.errors import UserError
from hdetr_d2.weights import DownloadError
from tests.conversion.test_transformers_folder import NAMES, build_theirs
from tests.weights.server import Server, serving

hub = pytest.importorskip("huggingface_hub")
ADDRESS = "hf://somebody/detector"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as state:
        monkeypatch.setattr(hub.constants, "ENDPOINT", state.url)
        monkeypatch.setattr(
            hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", state.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "cache"))
        yield state


def publish(server: Server, folder: Path, *, revision: str = "main", without: str = "") -> None:
    build_theirs("detr").save_pretrained(folder)
    for name in ("config.json", "model.safetensors"):
        if name != without:
            server.files[f"/somebody/detector/resolve/{revision}/{name}"] = (folder / name).read_bytes()


def test_a_model_of_the_hub_detects_and_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    publish(server, tmp_path / "theirs")
    detector = Detector.load(ADDRESS, device="cpu", score_threshold=0.0)
    assert detector.class_names == tuple(NAMES)
    assert len(detector(np.zeros((48, 64, 3), np.uint8)))
    count = len(server.requests)
    again = Detector.load(ADDRESS, device="cpu")
    assert len(server.requests) == count
    assert again.description == detector.description


def test_a_revision_is_asked_for_by_its_name(server: Server, tmp_path: Path) -> None:
    publish(server, tmp_path / "theirs", revision="second")
    assert Detector.load(f"{ADDRESS}@second", device="cpu").class_names == tuple(NAMES)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_what_the_repository_lacks_is_named(server: Server, tmp_path: Path, missing: str) -> None:
    publish(server, tmp_path / "theirs", without=missing)
    with pytest.raises(UserError, match=missing) as caught:
        Detector.load(ADDRESS, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_repository_that_is_not_there_is_told(server: Server) -> None:
    server.error_code = "RepoNotFound"
    with pytest.raises(DownloadError, match="no such model on the hub") as caught:
        Detector.load(ADDRESS, device="cpu")
    assert "\n" not in str(caught.value)


def test_without_a_connection_it_is_one_line_with_the_page(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the tries of the hub's client
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(DownloadError, match=r"https://huggingface\.co/somebody/detector") as caught:
        Detector.load(ADDRESS, device="cpu")
    assert "\n" not in str(caught.value)

"""Published models as detectors: fabricated files of the authors, served by this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2 import Detector, model_zoo
from hdetr_d2.checkpoint.class_heads import ClassHeads, Scoring
from hdetr_d2.checkpoint.classes import COCO_CATEGORY_IDS, COCO_ROWS, coco_class_names
from hdetr_d2.checkpoint.convert import from_ours
from hdetr_d2.detector.published import published_file
from hdetr_d2.detector.safe_config import read_config, require_ours
from hdetr_d2.errors import UserError
from hdetr_d2.model_zoo import trained
from tests.weights.server import Server, serving

RECIPES = {
    "hdetr": "h_deformable_detr_r50_12ep",
    "detr": "detr_r50_500ep",
    "rtdetr": "rtdetr_r18_72ep",
    "mr_detr": "mr_detr_r50_12ep",
}
NAME = RECIPES["hdetr"]


def small_config(name: str) -> Any:
    """A recipe with few and narrow layers."""
    config = model_zoo.get_config(name)
    model = config.model
    if "stages" in model.backbone:
        model.backbone.stages.pop("stride_in_1x1")
        model.backbone.stages.depth = 18
        model.neck.in_channels = [512] if len(model.neck.in_channels) == 1 else [128, 256, 512]
        model.transformer.encoder.update(num_layers=1)
        model.transformer.encoder.layer.hidden_dim = 32
    else:
        model.neck.necks[0].update(depth_mult=0.34, out_channels=32)
        model.neck.necks[0].encoder.layer.hidden_dim = 32
    model.transformer.update(embed_dim=32)
    if model.transformer.position_embedding is not None:
        model.transformer.position_embedding.num_features = 16
    model.transformer.decoder.num_layers = 2
    model.transformer.query_source.num_queries = 20
    if "num_queries" in (model.get("supervision") or {}):
        model.supervision.num_queries = 30 if "hybrid" in str(model.supervision._target_).lower() else 20
    return config


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(trained, "get_config", small_config)
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HDETR_D2_DOWNLOAD", raising=False)
    monkeypatch.delenv("HDETR_D2_MIRROR", raising=False)
    return iter([None])


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


def fabricate(origin: str, path: Path) -> tuple[dict[str, torch.Tensor], bytes]:
    """A file with the names and rows of the authors; our state dict, and the file's content."""
    config = small_config(RECIPES[origin])
    config.dataset.num_classes = 80
    torch.manual_seed(3)
    model = instantiate(config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = model.state_dict()
    theirs: Any = state
    if origin in trained.BY_CATEGORY_ID:
        theirs = ClassHeads.of(state, Scoring.of_model(model)).widen(state, COCO_CATEGORY_IDS, COCO_ROWS)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(from_ours(origin, theirs), path)
    return state, path.read_bytes()


def publish(monkeypatch: pytest.MonkeyPatch, url: str, name: str = NAME, **changes: Any) -> Any:
    entry = model_zoo.entries()[name]
    assert entry.weights is not None
    known = replace(entry, weights=replace(entry.weights, url=f"{url}/{entry.weights.file}", **changes))
    monkeypatch.setattr(trained, "entries", lambda: {name: known})
    return known.weights


@pytest.mark.parametrize("origin", RECIPES)
def test_a_published_model_is_downloaded_converted_and_detects(
    origin: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = RECIPES[origin]
    weights = publish(monkeypatch, server.url, name)
    state, content = fabricate(origin, tmp_path / "theirs.pth")
    server.files[f"/{weights.file}"] = content
    detector = Detector.load(f"zoo:{name}", download=True, device="cpu", score_threshold=0.0, optimize=False)
    loaded = detector.model.state_dict()
    keys = [key for key in loaded if "denoising" not in key and "num_batches" not in key]
    assert [key for key in keys if not torch.equal(loaded[key], state[key])] == []
    assert detector.class_names == tuple(coco_class_names())
    assert detector.description.category_ids == COCO_CATEGORY_IDS
    assert len(detector(np.zeros((64, 80, 3), np.uint8))) > 0
    # neither the server nor the authors' file is needed any more
    (tmp_path / "cache" / "weights" / weights.file).unlink()
    kept = torch.load(published_file(name), weights_only=True)
    assert len(server.requests) == 1
    assert kept["model"].keys() == {key for key in loaded if not key.endswith("num_batches_tracked")}
    config = read_config(kept["description"]["config"])
    require_ours(config)  # what fine-tuning wants


def test_the_converted_file_alone_is_enough_elsewhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = publish(monkeypatch, server.url)
    server.files[f"/{weights.file}"] = fabricate("hdetr", tmp_path / "theirs.pth")[1]
    (tmp_path / "alone.pth").write_bytes(published_file(NAME, download=True).read_bytes())
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "another"))
    detector = Detector.load(tmp_path / "alone.pth", device="cpu")
    assert detector.class_names[0] == "person"
    assert detector.description.resize == {"rule": "shortest_edge", "short_side": 800, "max_long_side": 1333}


def test_nothing_is_downloaded_unless_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = publish(monkeypatch, server.url)
    with pytest.raises(model_zoo.MissingWeightsError, match="--download") as caught:
        published_file(NAME)
    assert weights.url in str(caught.value)
    assert str(model_zoo.weights_folder() / weights.file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.requests == []
    monkeypatch.setenv("HDETR_D2_DOWNLOAD", "1")
    with pytest.raises(UserError, match="404"):
        published_file(NAME)


def test_a_file_that_was_put_there_by_hand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = publish(monkeypatch, "http://127.0.0.1:9")
    fabricate("hdetr", model_zoo.weights_folder() / weights.file)
    assert published_file(NAME, download=False).is_file()


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"size": 1}])
def test_another_file_than_the_published_is_refused(
    known: dict[str, Any], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = publish(monkeypatch, server.url, **known)
    _, content = fabricate("hdetr", tmp_path / "theirs.pth")
    server.files[f"/{weights.file}"] = content
    with pytest.raises(UserError, match="published file"):
        published_file(NAME, download=True)
    path = model_zoo.weights_folder() / weights.file
    assert not path.exists()
    path.write_bytes(content)
    with pytest.raises(UserError, match="published file"):
        published_file(NAME)


def test_a_file_that_changed_is_refused_and_another_one_is_converted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = publish(monkeypatch, "http://127.0.0.1:9")
    path = model_zoo.weights_folder() / weights.file
    fabricate("hdetr", path)
    first = published_file(NAME)
    content = torch.load(path, weights_only=True)
    content["model"]["transformer.level_embed"] += 1
    torch.save(content, path)
    with pytest.raises(UserError, match="first use"):
        published_file(NAME)
    path.with_name(f"{path.name}.sha256").unlink()
    second = published_file(NAME)
    assert first != second
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in second.name


def test_a_mirror_has_the_files_by_their_names(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = model_zoo.entries()[NAME].weights
    assert weights is not None
    server.files[f"/models/{weights.file}"] = fabricate("hdetr", tmp_path / "theirs.pth")[1]
    monkeypatch.setenv("HDETR_D2_MIRROR", f"{server.url}/models/")
    assert published_file(NAME, download=True).is_file()


@pytest.mark.parametrize("name", ["h_deformable_detr_r50_12epp", "", "dino_4scale_r50_12ep"])
def test_what_has_no_weights_is_told_with_what_has(name: str) -> None:
    with pytest.raises(model_zoo.NoEntryError) as caught:
        Detector.load(f"zoo:{name}")
    assert "h_deformable_detr_r50_12ep" in str(caught.value)


def test_every_address_can_be_downloaded_from() -> None:
    urls = [entry.weights.download_url for entry in model_zoo.entries().values() if entry.weights]
    assert len(urls) > 40
    assert [url for url in urls if not url.startswith("https://") or url.endswith("/view")] == []

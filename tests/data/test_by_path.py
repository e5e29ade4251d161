"""``dataset.train=PATH``: data in whatever layout, by the path alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hdetr_d2.annotations.layouts import LayoutError
from hdetr_d2.data import resolve_dataset
from hdetr_d2.engine.config import load
from tests.annotations.layouts import copies

RECIPE = "h_deformable_detr_r50_12ep"


def dataset_of(*overrides: str, recipe: str = RECIPE) -> Any:
    return load(recipe, overrides).dataset


@pytest.mark.parametrize("kind", copies.WRITERS)
def test_a_path_brings_training_and_validation_along(kind: str, tmp_path: Path) -> None:
    path = copies.WRITERS[kind](tmp_path / "data")
    files: dict[str, Any] = {"json": None, "images": None}
    dataset: dict[str, Any] = {"train": {**files, "path": str(path)}, "val": dict(files)}
    info = resolve_dataset(dataset, folder=tmp_path / "run")
    assert (info.num_images, info.names, dataset["num_classes"]) == (3, copies.NAMES, 3)
    assert Path(dataset["val"]["json"]).is_file()
    assert Path(dataset["val"]["images"]).is_dir()
    if "coco" not in kind:
        assert Path(dataset["train"]["json"]).parent == tmp_path / "run"


@pytest.mark.parametrize("recipe", [RECIPE, "quickstart/h_deformable_detr_generated.py"])
def test_a_path_takes_the_place_of_the_files_that_a_recipe_names(recipe: str, tmp_path: Path) -> None:
    dataset = dataset_of(f"dataset.train={tmp_path}", recipe=recipe)
    assert dataset.get("generate") is None
    assert dataset.train.path == str(tmp_path)
    assert [dataset[split][key] for split in ("train", "val") for key in ("json", "images")] == [None] * 4


def test_a_validation_set_of_its_own_is_kept(tmp_path: Path) -> None:
    train, val = copies.write_yolo(tmp_path / "train"), copies.write_roboflow_yolo(tmp_path / "val")
    dataset = dataset_of(f"dataset.val={val}", f"dataset.train={train}")
    resolve_dataset(dataset, folder=tmp_path / "run")
    assert Path(dataset.train.images).is_relative_to(train)
    assert Path(dataset.val.images).is_relative_to(val)
    coco = copies.write_coco(tmp_path / "coco")
    files = (f"dataset.val.json={coco / 'val.json'}", f"dataset.val.images={coco / 'images'}")
    dataset = dataset_of(*files, f"dataset.train={train}")
    resolve_dataset(dataset, folder=tmp_path / "run")
    assert dataset.val.json == str(coco / "val.json")


def test_a_saved_config_uses_the_files_that_were_written(tmp_path: Path) -> None:
    path = copies.write_yolo(tmp_path / "data")
    dataset = dataset_of(f"dataset.train={path}")
    resolve_dataset(dataset, folder=tmp_path / "run")
    again = OmegaConf.create(OmegaConf.to_container(dataset))
    (path / "data.yaml").unlink()
    resolve_dataset(again, folder=tmp_path / "other")
    assert again == dataset


def test_a_mapping_is_still_a_mapping() -> None:
    assert dataset_of("dataset.train={json: a.json}").train.json == "a.json"


@pytest.mark.parametrize(("made", "message"), [(False, "there is no such file or folder"), (True, "no known layout")])
def test_a_path_that_is_no_dataset_is_told(made: bool, message: str, tmp_path: Path) -> None:
    if made:
        (tmp_path / "data").mkdir()
    dataset: dict[str, Any] = {"train": {"json": None, "path": str(tmp_path / "data")}, "val": {"json": None}}
    with pytest.raises(LayoutError, match=message):
        resolve_dataset(dataset, folder=tmp_path / "run")

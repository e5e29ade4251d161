"""The data nodes of configs: complete, overridable from the command line, and loadable after saving."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from hdetr_d2.data import DatasetError, resolve_dataset
from hdetr_d2.model_zoo import get_config


def compose(name: str, *overrides: str) -> Any:
    data = get_config(f"common/data/{name}.py")
    train = {"batch_size": 4, "accumulate": 1, "seed": 1, "output_dir": "out"}
    schedule = get_config("common/schedule.py").schedule_deim_60ep
    config = OmegaConf.create(
        {"dataset": data.dataset, "dataloader": data.dataloader, "train": train, "schedule": schedule}
    )
    return LazyConfig.apply_overrides(config, [*overrides, "dataloader.num_workers=0"])


def own_files(folder: Any) -> list[str]:
    folder.write()
    return [f"dataset.{split}.{key}={getattr(folder, key)}" for split in ("train", "val") for key in ("json", "images")]


def test_an_own_coco_json_needs_the_command_line_only(coco_folder: Any) -> None:
    config = compose("custom", *own_files(coco_folder), "dataset.short_side=64", "dataset.name=data_test_own")
    assert resolve_dataset(config.dataset).names == ("ant", "cat", "dog")
    batch = next(iter(instantiate(config.dataloader.train)))
    assert len(batch) == 4
    assert max(min(s["image"].shape[1:]) for s in batch) <= 64
    samples = [s for batch in instantiate(config.dataloader.test) for s in batch]
    assert len(samples) == 6
    evaluator = instantiate(config.dataloader.evaluator)
    evaluator.reset()  # looks the dataset up, which the loader has registered


def test_own_files_not_given_are_asked_for() -> None:
    with pytest.raises(DatasetError, match=r"dataset\.train\.json=\.\.\."):
        resolve_dataset(compose("custom").dataset)


@pytest.mark.parametrize("name", ["coco", "coco_square", "coco_dense", "custom", "generated", "bccd"])
def test_every_data_config_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    config = compose(name)
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()
    assert again.dataloader.train.seed == 1
    assert config.dataloader.train.batch_size == 4
    assert config.dataloader.evaluator.output_dir == "out/inference"


def test_the_generated_config_is_drawn_when_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path))
    config = compose("generated", "dataset.generate.num_train=5", "dataset.generate.num_val=3")
    assert resolve_dataset(config.dataset).num_images == 5
    assert config.dataset.num_classes == 20
    batch = next(iter(instantiate(config.dataloader.train)))
    assert all(0 <= int(c) < 20 for s in batch for c in s["instances"].gt_classes)


@pytest.mark.parametrize("name", ["coco_square", "coco_dense"])
def test_square_data_has_one_size_a_step(name: str, coco_folder: Any) -> None:
    overrides = ["dataset.short_side=64", f"dataset.name=data_test_{name}", "schedule.cosine_epochs=[8,12]"]
    config = compose(name, *own_files(coco_folder), *overrides)
    resolve_dataset(config.dataset)
    loader = instantiate(config.dataloader.train)
    sizes, objects = [], []
    for batch in itertools.islice(loader, 26):  # 13 epochs of 6 images
        (shape,) = {tuple(s["image"].shape) for s in batch}
        assert shape[1] == shape[2]
        sizes.append(shape[1])
        objects.append(max(len(s["instances"]) for s in batch))
    assert set(sizes) == {32, 64}  # the multiples of 32 from 3/4 to 5/4
    if name == "coco_dense":
        assert max(objects[:8]) <= 3 < max(objects[8:16])  # mosaic and mixup from epoch 4 to 8
        assert max(objects[16:]) <= 3
        assert set(sizes[24:]) == {64}
    samples = [s for batch in instantiate(config.dataloader.test) for s in batch]
    assert {tuple(s["image"].shape) for s in samples} == {(3, 64, 64)}


def test_the_epochs_of_dense_data_are_the_schedules() -> None:
    config = compose("coco_dense", "schedule.cosine_epochs=[64,117]")
    mapper, (mixup, multi_scale) = config.dataloader.train.mapper, config.dataloader.train.batch_transforms
    assert mapper.mosaic.epochs == mixup.epochs == [4, 64]
    assert mapper.augmentations.strong_epochs == [4, 117]
    assert multi_scale.epochs == [0, 117]
    assert (mapper.mosaic.size, config.dataset.short_side) == (320, 640)


def test_bccd_is_found_below_detectron2_datasets(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shared_folder / "data" / "bccd").is_dir():
        pytest.skip("needs the BCCD photographs")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_folder / "data"))
    config = compose("bccd")
    info = resolve_dataset(config.dataset)
    assert (info.num_images, info.names) == (205, ("RBC", "WBC", "Platelets"))
    batch = next(iter(instantiate(config.dataloader.train)))
    assert sum(len(s["instances"]) for s in batch) > 10

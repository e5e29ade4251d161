"""LVIS through its config: the usual layout, an own json with boxes only, what training and evaluation get of it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from omegaconf import OmegaConf

from hdetr_d2.data import ClassBalancedSampling, RepeatFactorSampling, resolve_dataset
from hdetr_d2.evaluation import LVISEvaluator
from hdetr_d2.model_zoo import get_config


def compose(name: str, *overrides: str) -> Any:
    data = get_config(f"common/data/{name}.py")
    train = {"batch_size": 2, "accumulate": 1, "seed": 1, "output_dir": "out"}
    config = OmegaConf.create({"dataset": data.dataset, "dataloader": data.dataloader, "train": train})
    return LazyConfig.apply_overrides(config, [*overrides, "dataloader.num_workers=0"])


@pytest.fixture
def lvis_folder(coco_folder: Any) -> Any:
    """The small folder in LVIS's format, with boxes and no masks."""
    for image in coco_folder.content["images"]:
        image.update(neg_category_ids=[90], not_exhaustive_category_ids=[3] if image["id"] == 98 else [])
    for annotation in coco_folder.content["annotations"]:
        annotation.pop("segmentation", None)
    coco_folder.write()
    return coco_folder


def own_files(folder: Any) -> list[str]:
    return [f"dataset.{split}.{key}={getattr(folder, key)}" for split in ("train", "val") for key in ("json", "images")]


def test_lvis_v1_is_found_in_the_usual_layout(lvis_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lvis_folder.root / "datasets"
    (root / "lvis").mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads(lvis_folder.json.read_text())
        shutil.copytree(lvis_folder.images, root / "coco" / f"{split}2017")
        for image in content["images"]:  # LVIS v1 names files by their address alone
            image["coco_url"] = f"http://images.example.org/{split}2017/{image.pop('file_name')}"
        (root / "lvis" / f"lvis_v1_{split}.json").write_text(json.dumps(content))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    config = compose("lvis", "dataset.name=lvis_layout")
    resolve_dataset(config.dataset)
    (record, *_) = instantiate(config.dataloader.train.dataset)
    assert record["file_name"] == str(root / "coco" / "train2017" / "000.png")
    assert len(instantiate(config.dataloader.test.dataset)) == 6


def test_an_own_json_with_boxes_only_needs_the_command_line_only(lvis_folder: Any) -> None:
    config = compose("lvis", *own_files(lvis_folder), "dataset.short_side=64", "dataset.name=lvis_own")
    info = resolve_dataset(config.dataset)
    assert config.dataset.num_classes == 3
    assert config.dataset.image_counts == list(info.image_counts)
    loader = instantiate(config.dataloader.train)
    for batch in itertools.islice(loader, 5):
        for sample in batch:
            assert sample["neg_category_ids"] == [2]  # contiguous: the category with id 90
            assert sample["not_exhaustive_category_ids"] == ([0] if sample["image_id"] == 98 else [])
    samples = [sample for batch in instantiate(config.dataloader.test) for sample in batch]
    assert len(samples) == 6
    assert "instances" not in samples[0]
    # The file says nothing of frequencies: those of validation come from training.
    assert MetadataCatalog.get("lvis_own_val").thing_frequencies == ["r", "r", "r"]
    evaluator = instantiate(config.dataloader.evaluator)
    assert isinstance(evaluator, LVISEvaluator)
    assert evaluator.max_dets_per_image == 300


def test_sampling_is_a_choice_of_the_config(lvis_folder: Any) -> None:
    nodes = get_config("common/sampling.py")
    config = compose("lvis", *own_files(lvis_folder), "dataloader.train.sampling.threshold=0.5")
    sampling = instantiate(config.dataloader.train.sampling)
    assert isinstance(sampling, RepeatFactorSampling)
    assert (sampling.threshold, sampling.sqrt) == (0.5, True)
    config.dataloader.train.sampling = nodes.class_balanced
    assert isinstance(instantiate(config.dataloader.train.sampling), ClassBalancedSampling)


@pytest.mark.parametrize("name", ["lvis", "generated_lvis"])
def test_the_configs_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    config = compose(name)
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()
    assert again.dataloader.evaluator.output_dir == "out/inference"


def test_the_generated_config_has_200_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path))
    config = compose("generated_lvis", "dataset.generate.num_train=8", "dataset.generate.num_val=4")
    resolve_dataset(config.dataset)
    assert config.dataset.num_classes == len(config.dataset.image_counts) == 200
    batch = next(iter(instantiate(config.dataloader.train)))
    assert all(len(sample["neg_category_ids"]) == 8 for sample in batch)

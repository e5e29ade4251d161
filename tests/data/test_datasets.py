"""From json to Detectron2's dicts and catalogs, and the resolution of a config's dataset node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from omegaconf import OmegaConf

from hdetr_d2.data import (
    DatasetError,
    get_dataset,
    load_dataset_dicts,
    read_dataset_info,
    register_dataset,
    resolve_dataset,
    resolve_path,
)


def node(folder: Any, **changes: Any) -> dict[str, Any]:
    files = {"json": str(folder.json), "images": str(folder.images)}
    return {"train": dict(files), "val": dict(files), "names": None, "num_classes": None, "generate": None, **changes}


def test_class_ids_follow_the_sorted_category_ids(coco_folder: Any) -> None:
    coco_folder.write()
    info = read_dataset_info(coco_folder.json)
    assert (info.num_images, info.num_annotations, info.num_classes) == (6, 5, 3)
    assert info.names == ("ant", "cat", "dog")
    assert info.category_ids == (3, 7, 90)
    records = load_dataset_dicts(json_file=coco_folder.json, image_root=coco_folder.images)
    assert [a["category_id"] for r in records for a in r["annotations"]] == [0, 1, 2, 0, 1]


def test_dicts_are_detectron2s_and_keep_empty_and_crowded_images(coco_folder: Any) -> None:
    coco_folder.content["annotations"][2]["iscrowd"] = 1
    coco_folder.write()
    source = {"json_file": coco_folder.json, "image_root": coco_folder.images}
    records = load_dataset_dicts(**source)
    assert [r["image_id"] for r in records] == [100, 99, 98, 97, 96, 95]
    assert records[1] == {
        "file_name": str(coco_folder.images / "001.png"),
        "image_id": 99,
        "height": 64,
        "width": 48,
        "annotations": [
            {"id": 13, "bbox": [7.0, 6.0, 27.0, 18.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 2, "iscrowd": 1}
        ],
    }
    assert records[3]["annotations"] == []
    kept = load_dataset_dicts(**source, filter_empty=True)
    assert [r["image_id"] for r in kept] == [100, 98, 96]  # a crowd alone is nothing to train on


def test_a_file_changed_on_disk_is_read_again(coco_folder: Any) -> None:
    assert read_dataset_info(coco_folder.write().json).num_images == 6
    del coco_folder.content["images"][-1]
    assert read_dataset_info(coco_folder.write().json).num_images == 5


def test_relative_paths_are_found_below_detectron2_datasets(
    coco_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder.write()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert resolve_path("annotations.json") == str(coco_folder.json)
    with pytest.raises(DatasetError, match=r'"nothing\.json" nor ".*nothing\.json".*DETECTRON2_DATASETS'):
        resolve_path("nothing.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert resolve_path("annotations.json") == "annotations.json"


def test_registering_twice_changes_nothing_and_another_file_replaces(coco_folder: Any, tmp_path: Path) -> None:
    coco_folder.write()
    source = {"name": "data_test_replaced", "image_root": coco_folder.images}
    register_dataset(**source, json_file=coco_folder.json)
    register_dataset(**source, json_file=coco_folder.json)
    metadata = MetadataCatalog.get("data_test_replaced")
    assert metadata.thing_classes == ["ant", "cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1, 90: 2}
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(coco_folder.json)
    assert len(DatasetCatalog.get("data_test_replaced")) == 6
    coco_folder.content["categories"].append({"id": 91, "name": "eel"})
    (tmp_path / "other.json").write_text(json.dumps(coco_folder.content))
    register_dataset(**source, json_file=tmp_path / "other.json")
    assert MetadataCatalog.get("data_test_replaced").thing_classes == ["ant", "cat", "dog", "eel"]


def test_a_name_of_detectron2s_own_is_not_taken_over(coco_folder: Any) -> None:
    coco_folder.write()
    with pytest.raises(DatasetError, match='"coco_2017_train" is taken'):
        register_dataset(name="coco_2017_train", json_file=coco_folder.json, image_root=coco_folder.images)


def test_own_names_must_fit_the_categories(coco_folder: Any) -> None:
    coco_folder.write()
    source = {"name": "data_test_names", "json_file": coco_folder.json, "image_root": coco_folder.images}
    get_dataset(**source, names=["A", "B", "C"])
    assert MetadataCatalog.get("data_test_names").thing_classes == ["A", "B", "C"]
    with pytest.raises(DatasetError, match="2 names, the file 3 categories"):
        get_dataset(**source, names=["A", "B"])


def test_another_class_count_than_the_models_is_refused(coco_folder: Any) -> None:
    coco_folder.write()
    with pytest.raises(DatasetError, match=r"has 3 categories, the config says dataset.num_classes=80"):
        get_dataset(name="data_test_count", num_classes=80, json_file=coco_folder.json, image_root=coco_folder.images)


def test_resolving_reads_the_class_count(coco_folder: Any) -> None:
    coco_folder.write()
    config = OmegaConf.create({"dataset": node(coco_folder), "model": {"num_classes": "${dataset.num_classes}"}})
    assert resolve_dataset(config.dataset).num_images == 6
    assert config.model.num_classes == 3


def test_evaluation_needs_no_training_file(coco_folder: Any) -> None:
    coco_folder.write()
    dataset = node(coco_folder, train={"json": None, "images": None})
    assert resolve_dataset(dataset).num_images == 6
    assert dataset["num_classes"] == 3


def test_no_file_at_all_is_an_error_that_says_how_to_give_one(coco_folder: Any) -> None:
    nothing = {"json": None, "images": None}
    with pytest.raises(DatasetError, match=r"dataset\.train\.json=\.\.\."):
        resolve_dataset(node(coco_folder, train=dict(nothing), val=dict(nothing)))


@pytest.mark.parametrize("change", [{"name": "bee"}, {"id": 8}])
def test_training_and_validation_with_other_categories_are_refused(
    coco_folder: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    coco_folder.write()
    coco_folder.content["categories"][0].update(change)
    (tmp_path / "val.json").write_text(json.dumps(coco_folder.content))
    dataset = node(coco_folder, val={"json": str(tmp_path / "val.json"), "images": str(coco_folder.images)})
    with pytest.raises(DatasetError, match="list different categories"):
        resolve_dataset(dataset)


def test_resolving_draws_the_generated_dataset(tmp_path: Path) -> None:
    generate = {"num_train": 3, "num_val": 2, "image_size": 64, "num_classes": 5, "cache_folder": str(tmp_path)}
    nothing = {"json": None, "images": None}
    config = OmegaConf.create({"train": nothing, "val": nothing, "num_classes": None, "generate": generate})
    info = resolve_dataset(config)
    assert (info.num_images, config.num_classes) == (3, 5)
    assert len(load_dataset_dicts(json_file=config.val.json, image_root=config.val.images)) == 2

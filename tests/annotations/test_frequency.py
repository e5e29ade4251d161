"""LVIS's frequency groups: declared, counted, and carried from the training file to the catalogs and the config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import MetadataCatalog
from omegaconf import OmegaConf

from hdetr_d2.data import DatasetError, frequency_group, read_dataset_info, register_dataset, resolve_dataset


def test_the_groups_have_lvis_borders() -> None:
    assert [frequency_group(count) for count in (0, 1, 10, 11, 100, 101, 5000)] == list("rrrccff")


def test_counts_are_of_images_and_not_of_objects(coco_folder: Any) -> None:
    annotations = coco_folder.content["annotations"]
    annotations += [{**annotations[0], "id": 1000 + i} for i in range(200)]
    coco_folder.write()
    content = coco_folder.content
    expected = [
        len({a["image_id"] for a in content["annotations"] if a["category_id"] == c["id"]})
        for c in sorted(content["categories"], key=lambda c: c["id"])
    ]
    info = read_dataset_info(coco_folder.json)
    assert list(info.image_counts) == expected
    assert set(info.frequencies) == {"r"}


def declare(folder: Any, **values: list[Any]) -> None:
    for key, numbers in values.items():
        for category, number in zip(sorted(folder.content["categories"], key=lambda c: c["id"]), numbers, strict=True):
            category[key] = number
    folder.write()


def test_what_the_file_declares_is_taken(coco_folder: Any) -> None:
    declare(coco_folder, image_count=[5, 50, 500])
    info = read_dataset_info(coco_folder.json)
    assert info.image_counts == (5, 50, 500)
    assert info.frequencies == ("r", "c", "f")
    declare(coco_folder, frequency=["f", "f", "r"])
    assert read_dataset_info(coco_folder.json).frequencies == ("f", "f", "r")


def metadata_of(folder: Any, name: str, **changes: Any) -> Any:
    register_dataset(
        **{"name": name, "json_file": folder.json, "image_root": folder.images, "format": "lvis", **changes}
    )
    return MetadataCatalog.get(name)


def test_training_metadata_has_counts_and_groups_by_contiguous_id(coco_folder: Any) -> None:
    coco_folder.write()
    metadata = metadata_of(coco_folder, "frequency_train")
    assert metadata.thing_frequencies == ["r", "r", "r"]
    assert [entry["id"] for entry in metadata.class_image_count] == [3, 7, 90]
    assert sum(entry["image_count"] for entry in metadata.class_image_count) > 0


def test_a_validation_file_without_groups_takes_those_of_training(coco_folder: Any, tmp_path: Path) -> None:
    coco_folder.write()
    training = tmp_path / "training.json"
    names = [{**c, "image_count": 11 * c["id"]} for c in coco_folder.content["categories"]]
    training.write_text(json.dumps({**coco_folder.content, "categories": names}))
    own = metadata_of(coco_folder, "frequency_val", training=False, frequency_json=training)
    assert own.thing_frequencies == ["c", "c", "f"]
    assert own.class_image_count == [{"id": i, "image_count": 11 * i} for i in (3, 7, 90)]
    # Declared ones win: LVIS's files repeat the numbers of training in every split.
    declare(coco_folder, frequency=["f", "r", "r"])
    assert metadata_of(coco_folder, "frequency_val", training=False).thing_frequencies == ["f", "r", "r"]


def test_without_a_training_file_a_validation_file_has_no_groups(coco_folder: Any, tmp_path: Path) -> None:
    coco_folder.write()
    for index, changes in enumerate(({}, {"frequency_json": tmp_path / "absent.json"})):
        metadata = metadata_of(coco_folder, f"frequency_absent_{index}", training=False, **changes)
        assert not hasattr(metadata, "thing_frequencies")
        assert not hasattr(metadata, "class_image_count")


def test_a_training_file_of_other_classes_is_refused(coco_folder: Any, tmp_path: Path) -> None:
    coco_folder.write()
    training = tmp_path / "training.json"
    training.write_text(json.dumps({**coco_folder.content, "categories": [{"id": 1}, {"id": 2}], "annotations": []}))
    with pytest.raises(DatasetError, match="different categories"):
        metadata_of(coco_folder, "frequency_other", training=False, frequency_json=training)


def test_a_config_that_asks_for_counts_gets_those_of_training(coco_folder: Any, tmp_path: Path) -> None:
    coco_folder.write()
    files = {"json": str(coco_folder.json), "images": str(coco_folder.images)}
    node = {"train": files, "val": files, "names": None, "num_classes": None, "generate": None, "image_counts": None}
    dataset = OmegaConf.create(node)
    resolve_dataset(dataset)
    assert dataset.image_counts == list(read_dataset_info(coco_folder.json).image_counts)
    # Evaluation on another machine: only training needs them, and those of validation would be wrong.
    dataset = OmegaConf.create({**node, "train": {"json": str(tmp_path / "absent.json"), "images": "x"}})
    resolve_dataset(dataset)
    assert dataset.image_counts is None
    assert dataset.num_classes == 3


def test_real_lvis_categories_declare_their_groups(shared_folder: Path) -> None:
    path = shared_folder / "data" / "lvis" / "lvis_val_100.json"
    if not path.exists():
        pytest.skip("needs the LVIS sample")
    info = read_dataset_info(path)
    by_id = {c["id"]: c["frequency"] for c in json.loads(path.read_text())["categories"]}
    assert list(info.frequencies) == [by_id[identity] for identity in info.category_ids]
    assert set(info.frequencies) == {"r", "c", "f"}

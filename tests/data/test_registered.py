"""Datasets of Detectron2's catalogs, by their names in a config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from PIL import Image

from hdetr_d2.data import DatasetError, load_dataset_dicts, resolve_dataset


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HDETR_D2_CACHE", str(tmp_path / "cache"))
    before = set(DatasetCatalog)
    yield tmp_path
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def node(**train: Any) -> dict[str, Any]:
    return {"train": {"json": None, "images": None, **train}, "val": {"json": None, "images": None}}


def records(folder: Path) -> list[dict[str, Any]]:
    Image.new("RGB", (40, 30)).save(folder / "a b.png")
    Image.new("RGB", (20, 10)).save(folder / "c.png")
    boxes = [
        {"bbox": [1, 2, 11, 22], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1},
        {"bbox": [3, 4, 5, 6], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1},
    ]
    first = {"file_name": str(folder / "a b.png"), "image_id": "one", "height": 30, "width": 40, "annotations": boxes}
    return [first, {"file_name": str(folder / "c.png"), "image_id": "two", "annotations": []}]


def test_what_a_function_returns_is_used(folder: Path) -> None:
    DatasetCatalog.register("own_birds", lambda: records(folder))
    MetadataCatalog.get("own_birds").thing_classes = ["robin", "wren"]
    dataset = node(name="own_birds")
    info = resolve_dataset(dataset)
    assert (info.num_images, dataset["num_classes"], info.names) == (2, 2, ("robin", "wren"))
    loaded = load_dataset_dicts(json_file=dataset["train"]["json"], image_root=dataset["train"]["images"])
    assert [(r["file_name"], r["width"], r["height"]) for r in loaded] == [
        (str(folder / "a b.png"), 40, 30),
        (str(folder / "c.png"), 20, 10),
    ]
    assert [(a["bbox"], a["category_id"], a["iscrowd"]) for a in loaded[0]["annotations"]] == [
        ([1, 2, 11, 22], 1, 0),
        ([3, 4, 8, 10], 0, 1),
    ]


def test_a_registered_file_is_used_as_it_is(folder: Path) -> None:
    register_coco_instances("own_coco", {}, str(folder / "x.json"), str(folder))
    with pytest.raises(DatasetError, match=r"x\.json"):
        resolve_dataset(node(name="own_coco"))


def test_a_saved_config_is_used_where_nothing_is_registered(folder: Path) -> None:
    dataset = node(name="gone", json=str(folder / "saved.json"))
    with pytest.raises(DatasetError, match=r"saved\.json"):
        resolve_dataset(dataset)


def test_names_that_are_not_registered_and_records_that_are_none_are_told(folder: Path) -> None:
    DatasetCatalog.register("own_fish", lambda: [{"file_name": "no.png", "annotations": []}])
    with pytest.raises(DatasetError, match=r'no dataset "own_fsh".*own_fish'):
        resolve_dataset(node(name="own_fsh"))
    with pytest.raises(DatasetError, match="thing_classes"):
        resolve_dataset(node(name="own_fish"))
    MetadataCatalog.get("own_fish").thing_classes = ["carp"]
    with pytest.raises(DatasetError, match=r'"own_fish", record 0: .*no\.png'):
        resolve_dataset(node(name="own_fish"))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"returns a NoneType, not Detectron2's list"),
        (
            [{"file_name": "BOX", "annotations": [{"bbox": [5, 5, 3, 3, 30], "bbox_mode": BoxMode.XYWHA_ABS}]}],
            "record 0",
        ),
        ([{"file_name": "BOX", "annotations": [{"bbox": None, "bbox_mode": 0, "category_id": 0}]}], "record 0"),
        (["a.png"], "record 0"),
    ],
)
def test_what_is_no_dataset_of_detectron2_is_told(folder: Path, returned: Any, message: str) -> None:
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    for record in returned or ():
        if isinstance(record, dict):
            record["file_name"] = str(folder / "a.png")
    DatasetCatalog.register("own_wrong", lambda: returned)
    MetadataCatalog.get("own_wrong").thing_classes = ["carp"]
    with pytest.raises(DatasetError, match=rf'"own_wrong".*{message}'):
        resolve_dataset(node(name="own_wrong"))

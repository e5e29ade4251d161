"""What is wrong with a dataset is said when it is loaded, by file, annotation and image."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hdetr_d2.data import DatasetError, load_dataset_dicts, read_dataset_info

Spoil = Callable[[dict[str, Any]], None]


def load(folder: Any, **changes: Any) -> list[dict[str, Any]]:
    folder.write()
    return load_dataset_dicts(**{"json_file": folder.json, "image_root": folder.images, **changes})


def set_box(box: Any) -> Spoil:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][2]["bbox"] = box

    return spoil


def set_annotation(key: str, value: Any) -> Spoil:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][2][key] = value

    return spoil


def remove_box(content: dict[str, Any]) -> None:
    del content["annotations"][2]["bbox"]


# Annotation 13 is on image 99, "001.png", 48 x 64 (width x height).
FAULTY_ANNOTATIONS = {
    "negative width": (set_box([5, 6, -3, 10]), r"has width -3\.0"),
    "negative height": (set_box([5, 6, 3, -10]), r"has height -10\.0"),
    "zero width": (set_box([5, 6, 0, 10]), "zero size"),
    "over the right border": (set_box([40, 6, 20, 10]), r"exceeds its image of 48 x 64 pixels by 12\.0"),
    "over the top border": (set_box([5, -9, 20, 30]), r"exceeds .* by 9\.0"),
    "wholly outside": (set_box([500, 500, 20, 10]), "exceeds"),
    "beside the image within the tolerance": (set_box([48, 6, 1, 10]), "exceeds"),
    "NaN": (set_box([5, float("nan"), 20, 10]), "nan"),
    "infinite": (set_box([5, 6, float("inf"), 10]), "inf"),
    "three numbers": (set_box([5, 6, 20]), "bbox"),
    "null": (set_box(None), "bbox"),
    "a text": (set_box("5 6 20 10"), "bbox"),
    "no box": (remove_box, "bbox"),
    "unknown category": (set_annotation("category_id", 4), "category_id 4"),
    "unknown image": (set_annotation("image_id", 5), "image that the file does not list"),
    "id used twice": (set_annotation("id", 11), "has an id that an annotation before it has too"),
}


@pytest.mark.parametrize("name", FAULTY_ANNOTATIONS)
def test_a_faulty_annotation_is_refused_by_name(coco_folder: Any, name: str) -> None:
    spoil, message = FAULTY_ANNOTATIONS[name]
    spoil(coco_folder.content)
    with pytest.raises(DatasetError, match=message) as caught:
        load(coco_folder)
    text = str(caught.value)
    assert str(coco_folder.json) in text
    assert 'dataset.invalid="drop"' in text
    assert f"annotation {coco_folder.content['annotations'][2]['id']} " in text
    if name != "unknown image":
        assert '(image 99, "001.png")' in text


@pytest.mark.parametrize("name", FAULTY_ANNOTATIONS)
def test_drop_leaves_out_the_faulty_annotation_alone_and_counts_it(
    coco_folder: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    FAULTY_ANNOTATIONS[name][0](coco_folder.content)
    with caplog.at_level(logging.WARNING):
        records = load(coco_folder, invalid="drop")
    assert [a["id"] for r in records for a in r["annotations"]] == [11, 12, 14, 15]
    assert len(records) == 6
    assert "dropped 1 annotations" in caplog.text


def test_several_faults_are_counted_by_kind(coco_folder: Any) -> None:
    coco_folder.content["annotations"][0]["bbox"] = [5, 6, -3, 10]
    coco_folder.content["annotations"][1]["category_id"] = 1
    coco_folder.content["annotations"][3]["category_id"] = 1
    with pytest.raises(DatasetError, match=r"annotation 11 .*3 annotations are faulty: .*2 of unknown categories"):
        load(coco_folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("categories"), 'no list "categories"'),
        (lambda c: c.update(images=[]), "images is empty"),
        (lambda c: c.update(categories=[]), "categories is empty"),
        (lambda c: c["images"][1].update(id=100), "image id 100 occurs 2 times"),
        (lambda c: c["categories"][1].update(id=7), "category id 7 occurs 2 times"),
        (lambda c: c["images"][1].update(id="99"), "\"id\": '99', which is not an integer"),
        (lambda c: c["annotations"][1].pop("image_id"), r"annotation number 1 \(id 12\) has \"image_id\": None"),
        (lambda c: c["images"][1].pop("width"), 'image 99 has "width": None'),
        (lambda c: c["images"][1].update(height=0), 'image 99 has "height": 0'),
        (lambda c: c["images"][1].update(height=float("nan")), 'image 99 has "height": nan'),
        (lambda c: c["images"][1].pop("file_name"), "image 99 has neither"),
        (lambda c: c["annotations"].append(5), 'entry 5 of "annotations" is 5'),
    ],
)
@pytest.mark.parametrize("invalid", ["error", "drop"])
def test_a_file_that_is_unusable_as_a_whole_is_always_refused(
    coco_folder: Any, spoil: Spoil, message: str, invalid: str
) -> None:
    spoil(coco_folder.content)
    with pytest.raises(DatasetError, match=message):
        load(coco_folder, invalid=invalid)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\x00"])
def test_what_is_no_coco_json_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DatasetError, match=r"a\.json"):
        read_dataset_info(tmp_path / "a.json")


def test_boxes_that_exceed_the_image_slightly_are_clipped(coco_folder: Any) -> None:
    coco_folder.content["annotations"][2]["bbox"] = [-0.8, 6, 50.3, 10]  # ends at 49.5 of 48
    boxes = {a["id"]: a["bbox"] for r in load(coco_folder) for a in r["annotations"]}
    assert boxes[13] == [0.0, 6.0, 48.0, 16.0]
    assert boxes[11] == [5.0, 6.0, 25.0, 16.0]


def test_rare_boxes_of_zero_size_are_left_out_as_coco_needs_it(
    coco_folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = coco_folder.content["annotations"]
    annotations += [dict(annotations[0], id=1000 + i) for i in range(9_995)]
    annotations[2]["bbox"] = [5, 6, 20, 0]
    with caplog.at_level(logging.WARNING):
        records = load(coco_folder)
    assert sum(len(r["annotations"]) for r in records) == 9_999
    assert "left out 1 boxes of zero" in caplog.text
    annotations[3]["bbox"] = [5, 6, 0, 9]  # two in 10,000 are too many
    coco_folder.content["info"] = "changed"
    with pytest.raises(DatasetError, match="2 annotations are faulty: 2 of zero size"):
        load(coco_folder)


def test_a_missing_image_file_is_refused_and_can_be_dropped_in_training_only(coco_folder: Any) -> None:
    (coco_folder.images / "001.png").unlink()
    with pytest.raises(DatasetError, match=r'image 99: its file ".*001\.png" does not exist'):
        load(coco_folder)
    assert [r["image_id"] for r in load(coco_folder, invalid="drop")] == [100, 98, 97, 96, 95]
    with pytest.raises(DatasetError, match=r"001\.png"):
        load(coco_folder, invalid="drop", training=False)


def test_an_image_of_another_size_is_refused_when_headers_are_checked(coco_folder: Any) -> None:
    Image.new("RGB", (64, 48)).save(coco_folder.images / "001.png")  # sides exchanged
    with pytest.raises(DatasetError, match=r'001\.png" has 64 x 48 pixels where the json says 48 x 64'):
        load(coco_folder)
    assert len(load(coco_folder, check_files="exists")) == 6
    assert [r["image_id"] for r in load(coco_folder, invalid="drop")] == [100, 98, 97, 96, 95]


def test_a_file_that_is_no_image_is_refused_when_headers_are_checked(coco_folder: Any) -> None:
    (coco_folder.images / "001.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r'001\.png" cannot be read as an image'):
        load(coco_folder)


def test_a_wrong_image_folder_is_refused_even_with_drop(coco_folder: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DatasetError, match="not one of its 6 images is usable"):
        load(coco_folder, image_root=tmp_path / "elsewhere", invalid="drop")
    with pytest.raises(DatasetError, match="there is no"):
        load(coco_folder, image_root=tmp_path / "nowhere")


def test_an_image_turned_by_exif_has_either_size(coco_folder: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(coco_folder.images / "001.png", exif=exif)  # shown as 48 x 64
    assert len(load(coco_folder)) == 6
    Image.new("RGB", (48, 64)).save(coco_folder.images / "001.png", exif=exif)
    assert len(load(coco_folder)) == 6


def test_real_lvis_annotations_load_without_images(shared_folder: Path) -> None:
    path = shared_folder / "data" / "lvis" / "lvis_val_100.json"
    if not path.exists():
        pytest.skip("needs the LVIS sample")
    content = json.loads(path.read_text())
    records = load_dataset_dicts(json_file=path, image_root=None)
    assert len(records) == 100
    assert sum(len(r["annotations"]) for r in records) == len(content["annotations"])
    ids = sorted(c["id"] for c in content["categories"])
    by_id = {image["id"]: image for image in content["images"]}
    for record in records:
        assert [ids[i] for i in record["neg_category_ids"]] == by_id[record["image_id"]]["neg_category_ids"]
    assert read_dataset_info(path).num_classes == 1230

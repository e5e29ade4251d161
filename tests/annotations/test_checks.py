"""What is wrong with a dataset is said when it is loaded, by file, annotation and image."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.data import DatasetError, load_dataset_dicts, read_dataset_info
from hdetr_d2.errors import UserError
from hdetr_d2.evaluation import GroundTruthError, load_ground_truth

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


# What is wrong with a value, whoever reads it. Annotation 13 is the third.
WRONG_VALUES = {
    "crowd of text": ("iscrowd", "0", r'has "iscrowd": \'0\', which is neither 0 nor 1'),
    "crowd of false as text": ("iscrowd", "false", "neither 0 nor 1"),
    "crowd of two": ("iscrowd", 2, "neither 0 nor 1"),
    "crowd of minus one": ("iscrowd", -1, "neither 0 nor 1"),
    "crowd of a float": ("iscrowd", 1.0, "neither 0 nor 1"),
    "crowd of a list": ("iscrowd", [0], "neither 0 nor 1"),
    "crowd beyond 64 bits": ("iscrowd", 2**70, "neither 0 nor 1"),
    "ignore of text": ("ignore", "1", '"ignore"'),
    "area of text": ("area", "100", r'has "area": \'100\''),
    "area of a boolean": ("area", True, r'has "area": True'),
    "negative area": ("area", -4.0, r'has "area": -4\.0'),
    "area that is not finite": ("area", float("nan"), r'has "area": nan'),
    "infinite area": ("area", float("inf"), r'has "area": inf'),
    "huge area": ("area", 1e300, r'has "area": 1e\+300'),
    "area that no float holds": ("area", 10**400, '"area": a int too long|"area": 1000'),
    "box of booleans": ("bbox", [True, False, True, True], "not four finite numbers"),
    "box of texts": ("bbox", ["1", "2", "3", "4"], "not four finite numbers"),
    "box with one text": ("bbox", [1, "2", 3, 4], "not four finite numbers"),
    "box with null": ("bbox", [1, None, 3, 4], "not four finite numbers"),
    "box of five": ("bbox", [1, 2, 3, 4, 5], "not four finite numbers"),
    "box in a list": ("bbox", [[1, 2, 3, 4]], "not four finite numbers"),
    "huge box": ("bbox", [1, 2, 1e300, 4], "not four finite numbers of pixels"),
    "box whose end no float holds": ("bbox", [1e308, 2, 1e308, 4], "not four finite numbers of pixels"),
    "box that no float holds": ("bbox", [10**400, 2, 3, 4], "not four finite numbers"),
    "vanishing width": ("bbox", [20, 20, 1e-300, 4], "zero size"),
    "vanishing box in the corner": ("bbox", [0, 0, 1e-300, 1e-300], "zero size"),
    "empty box and no outline": ("bbox", [], r"has bbox \[\] and no outline"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", WRONG_VALUES)
@pytest.mark.parametrize("reader", ["training", "evaluation", "objects"])
def test_every_reader_refuses_a_wrong_value_in_the_same_words(coco_folder: Any, reader: str, name: str) -> None:
    key, value, message = WRONG_VALUES[name]
    coco_folder.content["annotations"][2][key] = value
    coco_folder.write()
    readers: dict[str, Callable[[], object]] = {
        "training": lambda: load_dataset_dicts(json_file=coco_folder.json, image_root=None),
        "evaluation": lambda: load_ground_truth(coco_folder.json),
        "objects": lambda: load_ground_truth(coco_folder.content),
    }
    with pytest.raises(DatasetError, match=message) as caught:
        readers[reader]()
    assert 'annotation 13 (image 99, "001.png")' in str(caught.value)
    assert 'set dataset.invalid="drop"' in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_what_training_drops_evaluation_drops(coco_folder: Any, name: str) -> None:
    key, value, _ = WRONG_VALUES[name]
    coco_folder.content["annotations"][2][key] = value
    assert [a["id"] for r in load(coco_folder, invalid="drop") for a in r["annotations"]] == [11, 12, 14, 15]
    truth = load_ground_truth(coco_folder.json, invalid="drop")
    assert truth.annotations.image_ids.tolist() == [100, 100, 98, 96]


@pytest.mark.parametrize("error", [DatasetError, GroundTruthError, UserError, ValueError])
def test_a_caller_may_expect_the_error_under_each_of_its_names(coco_folder: Any, error: type[Exception]) -> None:
    coco_folder.content["annotations"][2]["bbox"] = "?"
    coco_folder.write()
    for read in (load_ground_truth, lambda path: load_dataset_dicts(json_file=path, image_root=None)):
        with pytest.raises(error):
            read(coco_folder.json)


@pytest.mark.parametrize(("value", "crowd"), [(0, 0), (1, 1), (False, 0), (True, 1), (None, 0)])
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_crowds_and_ignored_objects_are_the_same_for_both(coco_folder: Any, key: str, value: Any, crowd: int) -> None:
    coco_folder.content["annotations"][2][key] = value
    assert load(coco_folder)[1]["annotations"][0]["iscrowd"] == crowd
    annotations = load_ground_truth(coco_folder.json).annotations
    assert (annotations.crowd | annotations.ignored).tolist() == [False, False, bool(crowd), False, False]


def test_null_and_no_area_are_the_box_s(coco_folder: Any) -> None:
    coco_folder.content["annotations"][0]["area"] = None
    del coco_folder.content["annotations"][1]["area"]
    coco_folder.content["annotations"][2]["area"] = 7
    coco_folder.write()
    assert load_ground_truth(coco_folder.json).annotations.areas[:3].tolist() == [200.0, 220.0, 7.0]


def test_boxes_far_outside_are_refused_by_both_and_amodal_ones_by_training_alone(coco_folder: Any) -> None:
    coco_folder.content["annotations"][2]["bbox"] = [500, 500, 5, 5]
    coco_folder.write()
    for read in (load_ground_truth, lambda path: load_dataset_dicts(json_file=path, image_root=None)):
        with pytest.raises(DatasetError, match="exceeds its image of 48 x 64"):
            read(coco_folder.json)
    coco_folder.content["annotations"][2]["bbox"] = [40, 6, 20, 10]
    coco_folder.write()
    assert load_ground_truth(coco_folder.json).annotations.boxes[2].tolist() == [40, 6, 20, 10]
    for refused in ({"amodal": False}, None):
        with pytest.raises(DatasetError, match=r"by 12\.0"):
            load_ground_truth(coco_folder.json, **refused) if refused else load(coco_folder)


def test_boxes_that_are_parts_of_the_image_draw_a_warning(coco_folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    for annotation in coco_folder.content["annotations"]:
        annotation["bbox"] = [0.25, 0.5, 0.5, 0.5]
    with caplog.at_level(logging.WARNING):
        load(coco_folder)
    assert "all 5 boxes lie between 0 and 1" in caplog.text
    assert str(coco_folder.json) in caplog.text
    caplog.clear()
    coco_folder.content["annotations"][0]["bbox"] = [0, 0, 9, 9]
    with caplog.at_level(logging.WARNING):
        load(coco_folder)
    assert "between 0 and 1" not in caplog.text

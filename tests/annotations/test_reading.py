"""Reading annotation files: what is completed, what is refused with which message, and that it happens once."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.annotations import DatasetError, parse_annotations, read_annotation_file, read_annotations
from hdetr_d2.data import load_dataset_dicts, read_dataset_info
from hdetr_d2.evaluation import load_ground_truth


def smallest() -> dict[str, Any]:
    return {
        "images": [{"id": 5, "height": 90, "width": 80, "file_name": "5.jpg"}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 77, "image_id": 5, "category_id": 9, "bbox": [1, 2, 30, 40]}],
    }


def written(folder: Path, content: Any) -> Path:
    path = folder / "val.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_fast_and_the_slow_way_read_the_same(tmp_path: Path, indent: int | None, bom: bytes) -> None:
    content = smallest()
    content["categories"][0]["name"] = '"segmentation": [[1, 2]], "é🙂'
    content["annotations"][0] |= {"segmentation": [[1, 2, 3.5, -4e-3, 7, 8]], "more": [[1], {}], "iscrowd": True}
    text = bom + json.dumps(content, indent=indent).encode()
    fast = parse_annotations("a", text)
    slow = parse_annotations("a", text.replace(b'"more"', b'"not json": NaN, "more"'))
    objects = read_annotations(content)
    for other in (slow, objects):
        assert other.categories == fast.categories
        assert other.image_names == fast.image_names
        for column in ("image_ids", "image_sizes", "annotation_ids", "annotation_boxes", "annotation_areas"):
            assert (getattr(other, column) == getattr(fast, column)).all()
        assert other.annotation_crowd.tolist() == fast.annotation_crowd.tolist() == [True]


@pytest.mark.parametrize("reader", ["training", "evaluation"])
@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("images", None, 'has no list "images"'),
        ("annotations", {}, 'has no list "annotations"'),
        ("images", [], "the list of images is empty"),
        ("categories", [], "the list of categories is empty"),
        ("annotations", [5], 'entry 0 of "annotations" is 5, not an object'),
        ("images", [{"id": "5"}], "image number 0 has \"id\": '5', which is not an integer"),
        ("images", [{"id": True}], 'image number 0 has "id": True, which is not an integer'),
        ("images", [{"id": 5.0}], 'image number 0 has "id": 5.0, which is not an integer'),
        ("images", [{"id": 2**63}], r'"id": 9223372036854775808, which does not fit into 64 bits'),
        ("images", [{"id": -(2**63) - 1}], "which does not fit into 64 bits"),
        ("images", [{"id": 5}, {"id": 4}, {"id": 5}], "image id 5 occurs 2 times"),
        ("images", [{"id": 5, "height": "90"}], "image 5 has \"height\": '90'"),
        ("images", [{"id": 5, "height": True}], 'image 5 has "height": True'),
        ("images", [{"id": 5, "width": -1}], 'image 5 has "width": -1'),
        ("images", [{"id": 5, "width": 0.5}], 'image 5 has "width": 0.5'),
        ("images", [{"id": 5, "width": 10**400}], 'image 5 has "width": '),
        ("images", [{"id": 5, "file_name": 7}], 'image 5 has "file_name": 7, which is not a text'),
        ("images", [{"id": 5, "file_name": ""}], 'image 5 has "file_name": .*which is empty'),
        ("images", [{"id": 5, "file_name": "a\0b"}], "which has a NUL in it"),
        ("images", [{"id": 5, "file_name": "\ud800"}], "which has half of a character in it"),
        ("images", [{"id": 5, "neg_category_ids": ["dog"]}], "\"neg_category_ids\" of image 5 holds 'dog'"),
        ("images", [{"id": 5, "neg_category_ids": None}], '"neg_category_ids": None, which is not a list'),
        ("images", [{"id": 5, "not_exhaustive_category_ids": [2**64]}], "something other than a category id"),
        ("categories", [{"name": "cat"}], 'category number 0 has "id": None, which is not an integer'),
        ("categories", 3 * [{"id": 9, "name": "dog"}], "category id 9 occurs 3 times"),
        ("categories", [{"id": 9, "name": None}], 'category 9 has "name": None; it must be a text'),
        ("categories", [{"id": 9, "name": ["dog"]}], 'category 9 has "name"'),
        ("categories", [{"id": 9, "frequency": "often"}], "category 9 has \"frequency\": 'often'; it must be"),
        ("categories", [{"id": 9, "image_count": -3}], 'category 9 has "image_count": -3'),
        ("categories", [{"id": 9, "image_count": "3"}], 'category 9 has "image_count"'),
        ("annotations", [{"id": 1, "image_id": "5", "category_id": 2}], r'number 0 \(id 1\) has "image_id": \'5\''),
        ("annotations", [{"id": "x", "image_id": 5, "category_id": 2}], 'annotation number 0 has "id"'),
        ("annotations", [{"id": 1, "image_id": 6, "category_id": 2, "bbox": [0, 0, 1, 1]}], "does not list"),
        ("annotations", [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]}], "category_id 1, which"),
        ("annotations", 2 * [{"id": 7, "image_id": 5, "category_id": 2, "bbox": [0, 0, 1, 1]}], "annotation before it"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, reader: str, part: str, value: object, message: str) -> None:
    content = smallest()
    content[part] = value
    path = written(tmp_path, content)
    with pytest.raises(DatasetError, match=rf"val\.json: .*{message}") as caught:
        load_ground_truth(path) if reader == "evaluation" else load_dataset_dicts(json_file=path, image_root=None)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", "\x00", "NaN", '{"images": [', "[" * 100_000, '{"a": 1' + "0" * 9999 + "}"]
)
@pytest.mark.parametrize("read", [load_ground_truth, read_dataset_info])
def test_what_is_no_coco_json_is_refused_with_its_path(tmp_path: Path, text: str, read: Any) -> None:
    with pytest.raises(DatasetError, match=r"val\.json: "):
        read(written(tmp_path, text))


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a device"])
@pytest.mark.parametrize("read", [load_ground_truth, read_dataset_info])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str, read: Any) -> None:
    path = tmp_path / "val.json"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # the name of a socket is short
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match=rf"val\.json: is {kind}, not a json file"):
        read(path)


@pytest.mark.parametrize("read", [read_annotation_file, read_dataset_info, load_ground_truth])
@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_a_list_that_is_there_twice_is_refused_and_a_name_is_not(tmp_path: Path, name: str, read: Any) -> None:
    path = tmp_path / "a.json"
    text = json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9, name: [{name: 1}]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}],
            "categories": [{"id": 1, "name": name, "supercategory": name}],
        }
    )
    path.write_text(text)
    assert len(read_annotation_file(path).image_ids) == 1
    path.write_text(f'{text[:-1]}, "{name}" : []}}')
    with pytest.raises(DatasetError, match=rf'a\.json: has "{name}" 2 times; make one list'):
        read(path)


def test_training_needs_sizes_and_names_of_images_and_metrics_do_not(tmp_path: Path) -> None:
    content = smallest()
    content["images"] = [{"id": 5}]
    path = written(tmp_path, content)
    assert len(load_ground_truth(path).annotations) == 1
    with pytest.raises(DatasetError, match='image 5 has "height": None'):
        load_dataset_dicts(json_file=path, image_root=None)
    content["images"] = [{"id": 5, "height": 90, "width": 80}]
    with pytest.raises(DatasetError, match="image 5 has neither"):
        load_dataset_dicts(json_file=written(tmp_path, content), image_root=None)


def test_annotations_without_ids_are_numbered_behind_the_others(tmp_path: Path) -> None:
    content = smallest()
    content["annotations"] += [{"image_id": 5, "category_id": 2, "bbox": [1, 1, 5, 5], "id": i} for i in (None, 3)]
    content["annotations"].append({"image_id": 5, "category_id": 2, "bbox": [1, 1, 5, 5]})
    (record,) = load_dataset_dicts(json_file=written(tmp_path, content), image_root=None)
    assert [a["id"] for a in record["annotations"]] == [77, 78, 3, 79]


def test_a_number_is_a_class_name_too(tmp_path: Path) -> None:
    content = smallest()
    content["categories"] = [{"id": 9, "name": 7}, {"id": 2}]
    assert read_dataset_info(written(tmp_path, content)).names == ("2", "7")


def test_negative_ids_are_ids(tmp_path: Path) -> None:
    content = smallest()
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = -5
    path = written(tmp_path, content)
    assert load_ground_truth(path).annotations.image_ids.tolist() == [-5]
    assert load_dataset_dicts(json_file=path, image_root=None)[0]["image_id"] == -5


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, smallest())
    calls = []
    real = parse_annotations
    monkeypatch.setattr(
        "hdetr_d2.annotations.reading.parse_annotations",
        lambda source, text: calls.append(source) or real(source, text),
    )
    read_dataset_info(path)
    load_dataset_dicts(json_file=path, image_root=None)
    load_ground_truth(path)
    assert read_annotation_file(path) is read_annotation_file(path)
    assert len(calls) == 1
    content = smallest()
    content["annotations"] = []
    written(tmp_path, content)
    assert read_dataset_info(path).num_annotations == 0
    assert len(calls) == 2


def outlined(*outlines: Any) -> dict[str, Any]:
    content = smallest()
    common = {"image_id": 5, "category_id": 9}
    content["annotations"] = [{"id": i, "segmentation": outline, **common} for i, outline in enumerate(outlines)]
    return content


def test_an_outline_without_a_box_gives_one(tmp_path: Path) -> None:
    content = outlined([[10, 20, 40.5, 20, 30, 60]], [[1, 1, 5, 1, 5, 5], [7, 8, 9, 8, 9, 30]])
    content["annotations"][0]["bbox"] = None
    path = written(tmp_path, content)
    expected = [[10.0, 20.0, 30.5, 40.0], [1.0, 1.0, 8.0, 29.0]]
    truth = load_ground_truth(path).annotations
    assert truth.boxes.tolist() == expected
    assert truth.areas.tolist() == [30.5 * 40, 8 * 29]
    (record,) = load_dataset_dicts(json_file=path, image_root=None)
    assert [a["bbox"] for a in record["annotations"]] == [[10.0, 20.0, 40.5, 60.0], [1.0, 1.0, 9.0, 30.0]]
    content["annotations"][1]["bbox"] = []  # not what a box can be, so that the file is read the slow way
    assert load_ground_truth(written(tmp_path, content)).annotations.boxes.tolist() == expected


def test_an_outline_that_gives_no_box_is_named_and_can_be_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, outlined([[1, 2]], [[1, 1, 5, 1, 5, 5]]))
    with pytest.raises(DatasetError, match=r"annotation 0 .*has bbox None, and its segmentation gives none .*polygon"):
        load_ground_truth(path)
    assert len(load_ground_truth(path, invalid="drop").annotations) == 1

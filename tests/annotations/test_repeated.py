"""Keys that one object has twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.annotations import DatasetError, read_annotation_file, read_dataset_info
from hdetr_d2.data.datasets import load_dataset_dicts
from hdetr_d2.evaluation.ground_truth import load_ground_truth

IMAGE = '{"id": 5, "file_name": "a.png", "width": 90, "height": 80}'
SOUND = '{"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}'
CATEGORY = '{"id": 2, "name": "cat"}'


def written(tmp_path: Path, *, image: str = IMAGE, annotation: str = SOUND, category: str = CATEGORY) -> Path:
    path = tmp_path / "a.json"
    path.write_text(f'{{"images": [{image}], "annotations": [{SOUND}, {annotation}], "categories": [{category}]}}')
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bbox", "[1, 1, 9, 9]"),
        ("image_id", "6"),
        ("category_id", "7"),
        ("area", "3"),
        ("iscrowd", "1"),
        ("ignore", "1"),
    ],
)
@pytest.mark.parametrize("slow", [False, True])
def test_an_annotation_that_says_a_thing_twice_is_a_faulty_one(
    tmp_path: Path, key: str, value: str, slow: bool
) -> None:
    first = SOUND.replace('"id": 1', '"id": 2, "ignore": 0')
    image = IMAGE.replace("90", '90, "more": NaN') if slow else IMAGE  # NaN is no json: read the slow way
    annotation = f'{{"{key}": {value}, {first[1:]}'  # the last one counts, and could be used
    table = read_annotation_file(written(tmp_path, image=image, annotation=annotation))
    assert [(row, fault.text) for row, fault in table.faults.items()] == [
        (1, f'has "{key}" twice, with different values; keep the right one')
    ]


def test_training_and_evaluation_take_the_same_of_it(tmp_path: Path) -> None:
    path = written(tmp_path, annotation=f'{{"bbox": [1, 1, 9, 9], {SOUND[1:]}'.replace('"id": 1', '"id": 2'))
    for read in (lambda: load_dataset_dicts(json_file=path, image_root=None), lambda: load_ground_truth(path)):
        with pytest.raises(DatasetError, match=r'a\.json: annotation 2 .*has "bbox" twice'):
            read()
    dicts: list[dict[str, Any]] = load_dataset_dicts(json_file=path, image_root=None, invalid="drop")
    assert [len(d["annotations"]) for d in dicts] == [1]
    assert len(load_ground_truth(path, invalid="drop").annotations) == 1


@pytest.mark.parametrize(
    ("what", "item"),
    [
        ("image", {"image": f'{{"width": 70, {IMAGE[1:]}'}),
        ("image", {"image": f'{{"id": 4, {IMAGE[1:]}'}),
        ("category", {"category": f'{{"name": "dog", {CATEGORY[1:]}'}),
        ("category", {"category": f'{{"id": 9, {CATEGORY[1:]}'}),
    ],
)
def test_an_image_or_category_that_says_a_thing_twice_is_refused(
    tmp_path: Path, what: str, item: dict[str, str]
) -> None:
    path = written(tmp_path, **item)
    for read in (read_annotation_file, read_dataset_info, load_ground_truth):
        with pytest.raises(DatasetError, match=rf'a\.json: {what} number 0 has ".*" twice, with different values'):
            read(path)


def test_the_same_value_twice_and_keys_of_nested_objects_are_fine(tmp_path: Path) -> None:
    attributes = json.dumps({"bbox": 1, "image_id": 3, "id": 4, "area": 2})
    annotation = SOUND.replace('"area": 25', f'"area": 25, "area": 25, "attributes": {attributes}')
    image = IMAGE.replace("90", '90, "width": 90')
    assert not read_annotation_file(written(tmp_path, image=image, annotation=annotation)).faults


def test_a_key_twice_that_nobody_reads_is_fine(tmp_path: Path) -> None:
    annotation = SOUND.replace('"area": 25', '"area": 25, "score": 1, "score": 2, "attributes": {"bbox": 1}')
    assert not read_annotation_file(written(tmp_path, annotation=annotation)).faults

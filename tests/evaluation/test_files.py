"""Reading annotation and result files: what is completed, and what is refused with which message."""

import json
import math
from pathlib import Path

import pytest

from hdetr_d2.evaluation import (
    GroundTruthError,
    ResultsError,
    evaluate_coco,
    load_ground_truth,
    load_results,
    validate_results,
)


def annotation_file() -> dict:
    return {
        "images": [{"id": 5}, {"id": 4}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 77, "image_id": 5, "category_id": 9, "bbox": [1, 2, 30, 40]}],
    }


def result(**changes: object) -> dict:
    return {"image_id": 5, "category_id": 9, "bbox": [1.0, 2.0, 30.0, 40.0], "score": 0.5, **changes}


def test_annotations_are_completed_and_categories_sorted() -> None:
    truth = load_ground_truth(annotation_file())
    assert truth.category_names == {2: "cat", 9: "dog"} and list(truth.category_names) == [2, 9]
    assert truth.annotations[0]["area"] == 1200 and truth.annotations[0]["iscrowd"] == 0


def test_categories_of_the_same_name_are_told_apart() -> None:
    content = annotation_file()
    content["categories"].append({"id": 3, "name": "dog"})
    assert load_ground_truth(content).category_names == {2: "cat", 3: "dog (3)", 9: "dog (9)"}
    assert {"AP-dog (3)", "AP-dog (9)"} < set(evaluate_coco(content, [result()])["bbox"])


def test_a_part_of_the_images_has_only_its_own_annotations() -> None:
    truth = load_ground_truth(annotation_file())
    assert len(truth.restricted_to({5}).annotations) == 1 and truth.restricted_to({5}).image_ids == (5,)
    assert truth.restricted_to({4}).annotations == ()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("images", None, "has no images"),
        ("images", [{"id": "5"}], "image 0 has id '5' instead of an integer"),
        ("categories", [{"name": "cat"}], "category 0 has id None instead of an integer"),
        ("annotations", [{"id": 1, "image_id": 6, "category_id": 2, "bbox": [0, 0, 1, 1]}], "unknown image_id 6"),
        ("annotations", [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]}], "unknown category_id 1"),
        ("annotations", [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [0, 0, 1]}], "annotation 1 is malformed"),
        ("annotations", [{"id": 1, "image_id": 5, "category_id": 2}], "annotation 1 is malformed: KeyError"),
    ],
)
def test_wrong_annotation_files_are_refused_by_name(tmp_path: Path, part: str, value: object, message: str) -> None:
    content = annotation_file()
    content[part] = value
    if value is None:
        del content[part]
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    with pytest.raises(GroundTruthError, match=rf"val\.json.*{message}"):
        load_ground_truth(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (result(image_id=6), r"detection 1 \(image 6\) is of an image that the annotations does not have"),
        (result(category_id=1), r"detection 1 \(image 5\) is of category 1"),
        (result(score=math.nan), "has score nan"),
        (result(score=math.inf), "has score inf"),
        (result(score="0.5"), "has score '0.5'"),
        (result(bbox=[1, 2, 3]), "four finite numbers"),
        (result(bbox=[1, 2, math.nan, 3]), "four finite numbers"),
        (result(bbox=[1, 2, -3, 3]), "negative width or height"),
        ({"image_id": 5, "bbox": [0, 0, 1, 1]}, "has no category_id and no score"),
        ([5, 9], "is not a dict but a list"),
    ],
)
def test_wrong_detections_are_refused_by_number(wrong: object, message: str) -> None:
    truth = load_ground_truth(annotation_file())
    validate_results([result()], truth)
    with pytest.raises(ResultsError, match=message):
        validate_results([result(), wrong], truth)


@pytest.mark.parametrize(("text", "message"), [("[{", "is not JSON"), ('{"a": 1}', "is not a list of detections")])
def test_files_that_are_not_results_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=rf"results\.json {message}"):
        load_results(path, load_ground_truth(annotation_file()))

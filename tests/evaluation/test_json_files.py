"""Reading annotation and result files: what is completed, and what is refused with which message."""

import json
import math
import os
from functools import partial
from pathlib import Path

import pytest

from hdetr_d2.evaluation import (
    ResultsError,
    evaluate_coco,
    load_ground_truth,
    load_results,
    write_results,
)
from hdetr_d2.evaluation.json_files import read_list


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
    assert truth.category_names == {2: "cat", 9: "dog"}
    assert list(truth.category_names) == [2, 9]
    assert truth.annotations.areas.tolist() == [1200]
    assert truth.annotations.crowd.tolist() == [False]


def test_categories_of_the_same_name_are_told_apart() -> None:
    content = annotation_file()
    content["categories"].append({"id": 3, "name": "dog"})
    assert load_ground_truth(content).category_names == {2: "cat", 3: "dog (3)", 9: "dog (9)"}
    assert {"AP-dog (3)", "AP-dog (9)"} < set(evaluate_coco(content, [result()])["bbox"])


def test_a_part_of_the_images_has_only_its_own_annotations() -> None:
    truth = load_ground_truth(annotation_file())
    assert len(truth.restricted_to({5}).annotations) == 1
    assert truth.restricted_to({5}).image_ids.tolist() == [5]
    assert len(truth.restricted_to({4}).annotations) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (result(image_id="5"), r"detection 1 \(image '5'\) is of an image"),
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
        (result(image_id=2**70), "detection 1 .* is of an image that"),
        (result(image_id=True), r"detection 1 \(image True\) is of an image that"),
        (result(category_id=9.0), "is of category 9.0"),
        (result(score=True), "has score True"),
        (result(score=10**400), "has score "),
        (result(bbox="1234"), "four finite numbers"),
        (result(bbox=[True, 2, 3, 4]), "four finite numbers"),
        (result(bbox=["1", 2, 3, 4]), "four finite numbers"),
        (result(bbox=[1, 2, 10**400, 3]), "four finite numbers"),
        (result(bbox=[1, 2, 1e300, 3]), "not in pixels of any image"),
        (result(id=[1]), r"has the id \[1\]"),
    ],
)
def test_wrong_detections_are_refused_by_number(tmp_path: Path, wrong: object, message: str) -> None:
    truth = load_ground_truth(annotation_file())
    assert len(load_results([result()], truth)) == 1
    with pytest.raises(ResultsError, match=message):
        load_results([result(), wrong], truth)
    path = tmp_path / "results.json"
    path.write_text(json.dumps([result(), wrong]))  # with NaN and Infinity, as Python's json writes them
    with pytest.raises(ResultsError, match=message):
        load_results(path, truth)


@pytest.mark.parametrize("ids", [[3, 3], [1, 2, 1]])
def test_detections_with_the_same_id_are_refused(ids: list[int]) -> None:
    truth = load_ground_truth(annotation_file())
    with pytest.raises(ResultsError, match=f"have the same id, such as {ids[0]}"):
        load_results([result(id=identity) for identity in ids], truth)
    assert len(load_results([result(id=identity) for identity in (4, 5)], truth)) == 2


@pytest.mark.parametrize("block", [1, 7, 64, 100, 1000, 2**20])
@pytest.mark.parametrize("separator", [",", ", ", ",\n", "\n ,\n  "])
def test_a_list_read_in_parts_is_the_list(tmp_path: Path, block: int, separator: str) -> None:
    items = [result(score=0.01 * number) for number in range(40)]
    items[3]["segmentation"] = {"size": [5, 5], "counts": "},{"}
    items[7]["parts"] = [{"a": 1}, {"a": 2}]
    items[11]["text"] = "]}, {["
    path = tmp_path / "results.json"
    path.write_text("\n [" + separator.join(json.dumps(item) for item in items) + "]\n")
    parts = list(read_list(path, block=block))
    assert [item for part in parts for item in part] == items
    if block == 100:
        assert len(parts) > 3


def test_a_mistake_in_a_late_part_of_a_file_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdetr_d2.evaluation.results.read_list", partial(read_list, block=1000))
    items = [result() for _ in range(500)]
    items[477]["score"] = math.nan
    path = tmp_path / "results.json"
    path.write_text(json.dumps(items))
    with pytest.raises(ResultsError, match=r"detection 477 .* has score nan"):
        load_results(path, load_ground_truth(annotation_file()))


def test_results_that_are_written_are_read_again_to_the_last_bit(tmp_path: Path) -> None:
    truth = load_ground_truth(annotation_file())
    written = load_results([result(score=1 / number, bbox=[1 / 3, 0, number, 1e-7]) for number in range(1, 99)], truth)
    write_results(tmp_path / "results.json", written)
    read = load_results(tmp_path / "results.json", truth)
    for column in ("image_ids", "category_ids", "boxes", "scores"):
        assert (getattr(read, column) == getattr(written, column)).all()
    assert json.loads((tmp_path / "results.json").read_text())[1] == result(score=1 / 2, bbox=[1 / 3, 0, 2, 1e-7])
    write_results(tmp_path / "none.json", load_results([], truth))
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{", "is not a JSON list of detections: "), ('{"a": 1}', ".*holds not a list but a dict"), ("", "")],
)
def test_files_that_are_not_results_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=rf"results\.json {message}"):
        load_results(path, load_ground_truth(annotation_file()))


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "missing"])
def test_results_that_are_no_file_are_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results.json"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    message = "cannot be read" if kind == "missing" else f"is {kind}, not a file of detections"
    with pytest.raises(ResultsError, match=rf"res\S* {message}"):
        load_results(path, load_ground_truth(annotation_file()))

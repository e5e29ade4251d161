"""``hdetr-d2 eval`` of detections that are in a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdetr_d2.evaluation import evaluate_coco, evaluate_lvis
from tests.cli.conftest import Program, told_in_one_line

FILES = ("--annotations", "val.json", "--results", "results.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """val.json with one crowd of objects an image and a class without any, and results.json."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images: list[Any] = [
        {"id": 3 + 7 * row, "width": 400, "height": 300, "file_name": f"{row}.jpg"} for row in range(12)
    ]
    annotations: list[Any] = []
    results: list[Any] = []
    for image in images:
        for label in rng.integers(0, 3, 5):
            box = [*rng.uniform(0, 150, 2).round(1).tolist(), *rng.uniform(10, 140, 2).round(1).tolist()]
            common = {"image_id": image["id"], "category_id": 1 + int(label)}
            annotations.append(
                {**common, "id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )
            found = (np.array(box) + rng.normal(0, 6, 4)).clip(1).round(1).tolist()
            results.append({**common, "bbox": found, "score": round(float(rng.uniform(0.1, 1)), 3)})
    categories = [{"id": identity, "name": f"class {identity}"} for identity in (1, 2, 3, 4)]
    write("val.json", {"images": images, "annotations": annotations, "categories": categories})
    write("results.json", results)
    return tmp_path


def write(name: str, content: Any) -> None:
    Path(name).write_text(json.dumps(content))


def read(name: str) -> Any:
    return json.loads(Path(name).read_text())


def as_lvis(*, frequencies: str = "rcff") -> None:
    """Turn val.json into LVIS's format: every class was looked for in every image."""
    content = read("val.json")
    for image in content["images"]:
        here = {each["category_id"] for each in content["annotations"] if each["image_id"] == image["id"]}
        image["neg_category_ids"] = sorted({1, 2, 3, 4} - here)
        image["not_exhaustive_category_ids"] = []
    for category, frequency in zip(content["categories"], frequencies):
        category["frequency"] = frequency
    write("val.json", content)


def test_the_metrics_are_printed_and_written(program: Program, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ended = program("eval", *FILES, "--output", "new/metrics.json")
    assert ended.code == 0, ended
    written = read("new/metrics.json")["bbox"]
    expected = evaluate_coco("val.json", "results.json")["bbox"]
    assert written["AP"] == expected["AP"] > 0
    assert written["AP-class 4"] is None
    assert f"{expected['AP']:.2f}" in caplog.text
    assert "class 3" in caplog.text


@pytest.mark.parametrize("backend", ["auto", "pycocotools"])
def test_fewer_detections_of_an_image_count(backend: str, program: Program, folder: Path) -> None:
    assert program("eval", *FILES, "--max-dets", "1", "--backend", backend, "--output", "metrics.json").code == 0
    written = read("metrics.json")["bbox"]
    assert written["AP"] == pytest.approx(evaluate_coco("val.json", "results.json", max_dets=1)["bbox"]["AP"])
    assert "AR10" not in written


def test_lvis_is_recognised_and_has_further_metrics(program: Program, folder: Path) -> None:
    as_lvis()
    assert program("eval", *FILES, "--fixed", "--output", "metrics.json").code == 0
    expected = evaluate_lvis("val.json", "results.json", fixed=True)
    written = read("metrics.json")
    assert written["bbox"]["APr"] == expected["bbox"]["APr"]
    assert written["bbox_fixed"]["AP"] == expected["bbox_fixed"]["AP"]
    assert program("eval", *FILES, "--style", "coco", "--output", "metrics.json").code == 0
    assert read("metrics.json")["bbox"]["AP"] == evaluate_coco("val.json", "results.json")["bbox"]["AP"]


def test_frequencies_are_counted_in_the_training_file(program: Program, folder: Path) -> None:
    as_lvis(frequencies="")
    assert program("eval", *FILES, "--train", "val.json", "--output", "metrics.json").code == 0
    written = read("metrics.json")["bbox"]
    counted = evaluate_lvis("val.json", "results.json", frequencies={1: "r", 2: "c", 3: "c", 4: "r"})["bbox"]
    assert (written["APr"], written["APc"]) == (counted["APr"], counted["APc"])  # in 9, 11, 12 and 0 images
    assert written["APf"] is None


def test_faulty_annotations_are_left_out_where_that_is_said(program: Program, folder: Path) -> None:
    content = read("val.json")
    write("whole.json", content)
    content["annotations"].append({**content["annotations"][0], "id": 999, "bbox": [0, 0, -4, 5]})
    write("val.json", content)
    assert "annotation 999" in told_in_one_line(program("eval", *FILES))
    assert program("eval", *FILES, "--invalid", "drop", "--output", "metrics.json").code == 0
    assert read("metrics.json")["bbox"]["AP"] == evaluate_coco("whole.json", "results.json")["bbox"]["AP"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-dets", "0"], "--max-dets"),
        (["--max-dets", "many"], "--max-dets"),
        (["--max-dets", str(2**40)], "max_dets"),
        (["--fixed"], "--fixed is for --style lvis"),
        (["--train", "val.json"], "--train is for --style lvis"),
        (["--backend", "lvis"], "--backend lvis is for --style lvis"),
        (["--backend", "abacus"], "abacus"),
        (["--style", "lvis"], "not in LVIS format"),
        (["--invalid", "maybe"], "--invalid"),
        (["--output", "/dev/null/out.json"], "/dev/null"),
        (["--output", "."], "is a folder"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments: list[str], message: str, program: Program, folder: Path) -> None:
    assert message in told_in_one_line(program("eval", *FILES, *arguments))


def test_a_detection_of_an_unknown_image_is_named(program: Program, folder: Path) -> None:
    results = read("results.json")
    results[4]["image_id"] = 1
    write("results.json", results)
    assert "detection 4 (image 1) is of an image" in told_in_one_line(program("eval", *FILES))

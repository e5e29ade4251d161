"""COCO metrics: every backend against pycocotools' own summary, and the cases that the backends do not handle."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hdetr_d2.evaluation import (
    BACKENDS,
    EvaluationError,
    available_backends,
    evaluate_boxes,
    evaluate_coco,
    evaluate_lvis,
    load_ground_truth,
    load_results,
)


def random_problem(seed: int) -> tuple[dict, list[dict]]:
    """Crowds, tied scores, gaps in the ids; two images and the last category have detections but no annotations."""
    rng = np.random.default_rng(seed)
    images = [{"id": 3 + 7 * i, "width": 400, "height": 300} for i in range(15)]
    categories = [{"id": 2 + 3 * i, "name": f"class {i}"} for i in range(5)]
    annotations: list[Any] = []
    detections: list[Any] = []
    for image in images[:-2]:
        for _ in range(rng.integers(0, 9)):
            box = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(3, 200, 2)])
            category_id = categories[rng.integers(0, 4)]["id"]  # none of the last
            annotation = {"id": len(annotations), "image_id": image["id"], "category_id": category_id}
            crowd = int(rng.random() < 0.15)
            annotations.append({**annotation, "bbox": box.tolist(), "area": 0.8 * box[2] * box[3], "iscrowd": crowd})
            for _ in range(rng.integers(0, 4)):
                near = (box + rng.normal(0, 5, 4)).clip(0)
                detections.append(detection(image, category_id, near, rng))
    for image in images:
        for _ in range(20):
            detections.append(detection(image, categories[rng.integers(0, 5)]["id"], rng.uniform(1, 150, 4), rng))
    return {"images": images, "categories": categories, "annotations": annotations}, detections


def detection(image: dict, category_id: int, box: np.ndarray, rng: np.random.Generator) -> dict:
    score = float(np.round(rng.random(), 1))  # many ties
    return {"image_id": image["id"], "category_id": category_id, "bbox": box.tolist(), "score": score}


def stats_of_pycocotools(truth: dict, results: list[dict]) -> np.ndarray:
    """The 12 numbers of pycocotools, used as its documentation says."""
    coco = COCO()
    # pycocotools takes a detection that is matched to annotation 0 for one that is not matched.
    annotations = [{**each, "id": each["id"] + 1} for each in truth["annotations"]]
    coco.dataset = {**truth, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(each) for each in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("seed", range(3))
def test_every_backend_gives_the_numbers_that_pycocotools_prints(backend: str, seed: int) -> None:
    truth, results = random_problem(seed)
    metrics = evaluate_coco(truth, results, backend=backend)["bbox"]
    expected = stats_of_pycocotools(truth, results)
    assert [metrics[name] for name in NAMES] == pytest.approx(100 * expected, abs=1e-10)
    assert 0 < metrics["AP"] < metrics["AP50"] < 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_precision_and_recall_are_the_same_to_the_last_bit_with_another_limit(backend: str) -> None:
    truth, results = random_problem(seed=5)
    loaded = load_ground_truth(truth)
    detections = load_results(results, loaded)
    oracle = evaluate_boxes(loaded, detections, max_dets=[1, 5, 8], backend="pycocotools")
    found = evaluate_boxes(loaded, detections, max_dets=[1, 5, 8], backend=backend)
    np.testing.assert_array_equal(found.precision, oracle.precision)
    np.testing.assert_array_equal(found.recall, oracle.recall)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ap_of_a_class_is_what_pycocotools_gives_for_it_alone(backend: str) -> None:
    truth, results = random_problem(seed=1)
    metrics = evaluate_coco(truth, results, backend=backend)["bbox"]
    for category in truth["categories"]:
        mine = [each for each in truth["annotations"] if each["category_id"] == category["id"]]
        found = [each for each in results if each["category_id"] == category["id"]]
        alone = stats_of_pycocotools({**truth, "annotations": mine}, found)[0]
        expected = math.nan if alone == -1 else 100 * alone
        assert metrics[f"AP-{category['name']}"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_perfect_detections_have_ap_100_and_none_have_ap_0(backend: str) -> None:
    truth, _ = random_problem(seed=2)
    perfect = [
        {key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for each in truth["annotations"]
        if not each["iscrowd"]
    ]
    assert evaluate_coco(truth, perfect, backend=backend)["bbox"]["AP"] == pytest.approx(100)
    nothing = evaluate_coco(truth, [], backend=backend)["bbox"]
    assert nothing["AP"] == nothing["AR100"] == nothing["AP-class 0"] == 0
    assert math.isnan(nothing["AP-class 4"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_annotations_nothing_is_defined(backend: str) -> None:
    truth, results = random_problem(seed=3)
    metrics = evaluate_coco({**truth, "annotations": []}, results, backend=backend)["bbox"]
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_limit_of_detections_counts_per_image_and_category(backend: str) -> None:
    boxes = [[0, 0, 20, 20], [100, 100, 50, 50]]
    annotations = [
        {"id": 10 * category + index, "image_id": 1, "category_id": category, "bbox": box}
        for category in (1, 2)
        for index, box in enumerate(boxes)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    truth = {"images": [{"id": 1}], "categories": categories, "annotations": annotations}
    perfect = [{key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for each in annotations]
    assert evaluate_coco(truth, perfect, max_dets=1, backend=backend)["bbox"]["AR1"] == pytest.approx(50)
    metrics = evaluate_coco(truth, perfect, max_dets=2, backend=backend)["bbox"]
    assert metrics["AR2"] == pytest.approx(100)
    assert "AR100" not in metrics


def test_the_fastest_backend_comes_first_and_pycocotools_is_always_there() -> None:
    assert available_backends()[-1] == "pycocotools"
    with pytest.raises(ValueError, match="no evaluation backend 'cocoapi'; there is auto, hotcoco"):
        evaluate_coco(*random_problem(0), backend="cocoapi")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("style", ["coco", "lvis"])
@pytest.mark.parametrize("first", [2**53, 20240131120000123, 2**63 - 3, -(2**63), -(2**53) - 2])
def test_perfect_detections_have_ap_100_whatever_integers_the_ids_are(backend: str, style: str, first: int) -> None:
    ids = [first, first + 1, first + 2]
    lists: dict = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth = {
        "images": [{"id": i, **lists} for i in ids],
        "categories": [{"id": i, "name": str(i), "frequency": "f"} for i in ids],
        "annotations": [
            {"id": image, "image_id": image, "category_id": ids[-1 - n], "bbox": [10, 10, 30 + 20 * n, 30]}
            for n, image in enumerate(ids)
        ],
    }
    keys = ("image_id", "category_id", "bbox")
    results = [{key: each[key] for key in keys} | {"score": 0.9} for each in truth["annotations"]]
    evaluate = evaluate_coco if style == "coco" else evaluate_lvis
    metrics = evaluate(truth, results, backend=backend)["bbox"]
    assert metrics["AP"] == pytest.approx(100)
    assert all(metrics[f"AP-{i}"] == pytest.approx(100) for i in ids)


@pytest.mark.parametrize("limit", [1, 5, 10, 11])
def test_metrics_are_of_the_limit_that_is_asked_for(limit: int) -> None:
    truth, results = random_problem(seed=4)
    metrics = evaluate_coco(truth, results, max_dets=limit)["bbox"]
    per_image: dict = {}
    for each in sorted(results, key=lambda result: -result["score"]):
        per_image.setdefault((each["image_id"], each["category_id"]), []).append(each)
    kept = [each for found in per_image.values() for each in found[:limit]]
    kept.sort(key=results.index)
    expected = dict(zip(NAMES, 100 * stats_of_pycocotools(truth, kept)))
    assert [metrics[name] for name in ("AP", "AP50", "APs")] == pytest.approx(
        [expected[name] for name in ("AP", "AP50", "APs")]
    )
    assert [name for name in metrics if name[:2] == "AR" and name[2:].isdigit()] == [
        f"AR{n}" for n in sorted({n for n in (1, 10) if n < limit} | {limit})
    ]


@pytest.mark.parametrize("limit", [0, -3, True, 2.5, None, 2**40])
def test_a_limit_that_is_none_is_refused(limit: object) -> None:
    truth, results = random_problem(seed=4)
    for evaluate in (evaluate_coco, evaluate_lvis):
        with pytest.raises(EvaluationError, match="must be a positive integer"):
            evaluate(truth, results, max_dets=limit)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_marked_ignore_is_neither_to_be_found_nor_an_error_to_find(backend: str) -> None:
    truth, results = random_problem(seed=7)
    plain = {**truth, "annotations": [dict(each) for each in truth["annotations"]]}
    for number, annotation in enumerate(truth["annotations"]):
        if number % 3 == 0:
            annotation["ignore"] = 1
            plain["annotations"][number]["iscrowd"] = 1
    found, expected = (evaluate_coco(each, results, backend=backend)["bbox"] for each in (truth, plain))
    assert found == pytest.approx(expected, nan_ok=True)
    assert found["AP"] > 0

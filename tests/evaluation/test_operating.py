"""Thresholds with the best F1: against pycocotools, which counts at every score."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hdetr_d2.evaluation import load_ground_truth, load_results
from hdetr_d2.evaluation.error_kinds import KINDS, error_kinds
from hdetr_d2.evaluation.operating import DEFAULT_THRESHOLD, Threshold, best_thresholds


def draw(seed: int, *, crowds: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of three of four classes in six images, and detections near them, beside them and of equal scores."""
    random = np.random.default_rng(seed)
    annotations: list[Any] = []
    results: list[Any] = []
    for image in range(1, 7):
        for _ in range(int(random.integers(0, 6))):
            x, y = random.integers(0, 60, 2).tolist()
            w, h = random.integers(8, 30, 2).tolist()
            category = int(random.choice([3, 5, 8]))
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h],
                    "area": w * h, "iscrowd": int(crowds and random.random() < 0.3),
                }
            )  # fmt: skip
            for _ in range(int(random.integers(0, 4))):
                moved = [v + int(d) for v, d in zip((x, y, w, h), random.integers(-4, 5, 4), strict=True)]
                results.append((image, category if random.random() < 0.8 else 9, moved))
        for _ in range(3):
            results.append((image, int(random.choice([3, 5, 8, 9])), random.integers(5, 40, 4).tolist()))
    content = {
        "images": [{"id": image, "file_name": f"{image}.png", "width": 100, "height": 100} for image in range(1, 7)],
        "annotations": annotations,
        "categories": [{"id": identity, "name": f"class {identity}"} for identity in (3, 5, 8, 9)],
    }
    scores = random.integers(1, 12, len(results)) / 16
    return content, [
        {"image_id": image, "category_id": category, "bbox": box, "score": float(score)}
        for (image, category, box), score in zip(results, scores, strict=True)
    ]


def counts(content: dict[str, Any], results: list[dict[str, Any]], category: int) -> tuple[int, int, int]:
    """Right ones, judged ones and objects, by pycocotools."""
    for number, item in enumerate(results, start=1):
        item.update(id=number, area=item["bbox"][2] * item["bbox"][3], iscrowd=0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        for coco, items in ((truth, content["annotations"]), (found, results)):
            coco.dataset = {**content, "annotations": items}
            coco.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.catIds, evaluation.params.areaRng = [category], [[0, 1e10]]
        evaluation.params.maxDets, evaluation.params.iouThrs = [1000], np.array([0.5])
        evaluation.evaluate()
    images = [image for image in evaluation.evalImgs if image is not None]
    right = judged = objects = 0
    for image in images:
        matched, ignored = np.array(image["dtMatches"][0]) > 0, np.array(image["dtIgnore"][0]) > 0
        right, judged = right + int((matched & ~ignored).sum()), judged + int((~ignored).sum())
        objects += int((np.array(image["gtIgnore"]) == 0).sum())
    return right, judged, objects


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_no_score_has_a_better_f1_and_none_above_the_same(seed: int, crowds: bool) -> None:
    content, results = draw(seed, crowds=crowds)
    truth = load_ground_truth(content)
    chosen = best_thresholds(truth, load_results(results, truth)).classes
    assert list(chosen) == [3, 5, 8, 9]
    for category, threshold in chosen.items():
        tried = {}
        for score in {result["score"] for result in results if result["category_id"] == category}:
            shown = [dict(result) for result in results if result["score"] >= score]
            right, judged, objects = counts(content, shown, category)
            tried[score] = (2 * right / (judged + objects) if judged + objects else 0.0, right, judged, objects)
        best = max((f1 for f1, *_ in tried.values()), default=0.0)
        assert threshold.f1 == pytest.approx(best, abs=1e-12)
        if best > 0:
            assert threshold.score == max(score for score, (f1, *_) in tried.items() if f1 == best)
            _, right, judged, objects = tried[threshold.score]
            assert (threshold.precision, threshold.recall) == (right / judged, right / objects)
            assert (threshold.shown, threshold.objects) == (judged, objects)


def test_a_class_without_a_right_detection_has_the_overall_threshold() -> None:
    content, results = draw(0, crowds=False)
    truth = load_ground_truth(content)
    point = best_thresholds(truth, load_results(results, truth))
    assert point.classes[9].score == point.overall.score
    assert point.classes[9].f1 == 0
    kept = point.keep(load_results(results, truth))
    assert set(zip(kept.category_ids.tolist(), kept.scores.tolist(), strict=True)) == {
        (result["category_id"], result["score"])
        for result in results
        if result["score"] >= point.classes[result["category_id"]].score
    }


def test_without_any_detection_the_threshold_is_the_usual_one() -> None:
    content, _ = draw(0, crowds=False)
    truth = load_ground_truth(content)
    objects = len(content["annotations"])
    nothing = Threshold(score=DEFAULT_THRESHOLD, f1=0, precision=0, recall=0, objects=objects, shown=0)
    assert best_thresholds(truth, load_results([], truth)).overall == nothing


def test_a_detection_of_a_class_that_lvis_does_not_judge_decides_nothing() -> None:
    content, results = draw(1, crowds=False)
    for image in content["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    truth = load_ground_truth(content)
    by_lvis, by_coco = (best_thresholds(truth, load_results(results, truth), style=s) for s in ("lvis", "coco"))
    assert by_lvis.classes[3].shown <= by_coco.classes[3].shown
    assert by_lvis.overall.f1 > by_coco.overall.f1


def test_errors_are_sorted_by_kind() -> None:
    boxes = {1: (10, 10, 20, 20), 2: (50, 10, 20, 20), 3: (10, 50, 20, 20), 4: (50, 50, 20, 20)}
    content = {
        "images": [{"id": 7, "file_name": "7.png", "width": 100, "height": 100}],
        "annotations": [
            {"id": key, "image_id": 7, "category_id": 4, "bbox": list(box), "area": 400, "iscrowd": 0}
            for key, box in boxes.items()
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": 6, "name": "dog"}],
    }
    found = [
        (4, boxes[1], 0.9), (4, boxes[1], 0.8),  # right, and again
        (6, boxes[2], 0.8),  # a dog
        (4, (10, 62, 20, 20), 0.7),  # too low
        (4, (80, 80, 10, 10), 0.6),  # nothing there
        (4, boxes[4], 0.1),  # not shown
    ]  # fmt: skip
    results = [{"image_id": 7, "category_id": c, "bbox": list(box), "score": s} for c, box, s in found]
    truth = load_ground_truth(content)
    everything = load_results(results, truth)
    kinds = error_kinds(truth, everything, everything.select(everything.scores > 0.5))
    assert kinds.counts == {
        "missed": 1, "wrong class": 1, "badly placed": 1, "wrong class and badly placed": 0, "duplicate": 1,
        "background": 1,
    }  # fmt: skip
    assert list(kinds.counts) == list(KINDS.values())
    assert kinds.ap_lost["missed"] >= 0
    assert kinds.confusion.tolist() == [[1, 1, 2], [0, 0, 0], [3, 0, 0]]
    assert kinds.class_names == ("cat", "dog")

"""The figures of the long-tail report: against the metrics of LVIS, and on small scenes of which they are known."""

import math
from typing import Any

import numpy as np
import pytest

from hdetr_d2.evaluation import GroundTruthError, evaluate_boxes, evaluate_lvis, load_ground_truth, load_results
from hdetr_d2.evaluation.longtail import analyse
from hdetr_d2.evaluation.longtail.figures import best_and_worst
from hdetr_d2.evaluation.longtail.matches import called, judge, pairwise_iou
from hdetr_d2.evaluation.lvis import limit_per_image, of_annotated_classes, prepare_truth

NAMES = {1: "gear", 2: "star", 3: "leaf", 4: "moth"}
GROUPS = {1: "f", 2: "c", 3: "r", 4: "r"}
SQUARES = {"a": [10.0, 10.0, 20.0, 20.0], "b": [60.0, 10.0, 20.0, 20.0], "c": [10.0, 60.0, 20.0, 20.0]}


def scene(objects: list[tuple[int, int, str]], **lists: dict[int, list[int]]) -> dict:
    """Two images with objects (image, category, square); lists of categories by image id."""
    images: list[Any] = [
        {"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": []}
        | {f"{key}_category_ids": of_image[i] for key, of_image in lists.items() if i in of_image}
        for i in (1, 2)
    ]
    return {
        "images": images,
        "categories": [{"id": i, "name": name, "frequency": GROUPS[i]} for i, name in NAMES.items()],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": SQUARES[square]}
            for number, (image, category, square) in enumerate(objects, start=1)
        ],
    }


def detection(image: int, category: int, square: str, score: float, shift: float = 0.0) -> dict:
    x, y, width, height = SQUARES[square]
    return {"image_id": image, "category_id": category, "bbox": [x + shift, y, width, height], "score": score}


def random_problem(seed: int) -> tuple[dict, list[dict]]:
    """Crowded objects, tied scores, both kinds of lists, ignored objects."""
    rng = np.random.default_rng(seed)
    categories = [{"id": i + 1, "name": f"class {i}", "frequency": "rcf"[i % 3]} for i in range(8)]
    images: list[Any] = []
    annotations: list[Any] = []
    results: list[Any] = []
    for number in range(20):
        kinds = rng.permutation(8) + 1
        lists = {"neg_category_ids": kinds[4:6].tolist(), "not_exhaustive_category_ids": kinds[:1].tolist()}
        images.append({"id": 90 - number, **lists})
        for category in kinds[:4].tolist():
            for _ in range(rng.integers(1, 5)):
                box = np.concatenate([rng.uniform(0, 60, 2), rng.uniform(10, 40, 2)])
                annotation = {"id": len(annotations) + 1, "image_id": 90 - number, "category_id": category}
                annotations.append({**annotation, "bbox": box.tolist(), "ignore": int(rng.random() < 0.1)})
                for _ in range(rng.integers(0, 4)):
                    near = np.abs(box + rng.normal(0, 4, 4))
                    given = category if rng.random() < 0.7 else int(rng.integers(1, 9))
                    score = float(np.round(rng.random(), 1))
                    results.append(
                        {"image_id": 90 - number, "category_id": given, "bbox": near.tolist(), "score": score}
                    )
    return {"images": images, "categories": categories, "annotations": annotations}, results


def test_overlaps_are_those_of_rectangles() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 0, 0], [20, 20, 5, 5]], dtype=float)
    others = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 0, 0]], dtype=float)
    assert pairwise_iou(boxes, others) == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0], [0, 0, 0]]))


def average_precision(scores: np.ndarray, correct: np.ndarray, objects: int) -> float:
    """Of ranked detections, with the definition: mean over 101 recalls of the best precision at or above it."""
    right = np.cumsum(correct[np.argsort(-scores, kind="stable")])
    precision, recall = right / np.arange(1, len(right) + 1), right / objects
    return float(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_right_gives_the_ap_that_the_metrics_give(seed: int) -> None:
    content, results = random_problem(seed)
    truth = prepare_truth(load_ground_truth(content))
    detections = limit_per_image(load_results(results, truth), 300)
    judged = judge(truth, detections)
    counted = detections.select(of_annotated_classes(detections, truth))
    evaluation = evaluate_boxes(truth, counted, max_dets=[300], backend="pycocotools", lvis=True)
    assert len(evaluation.category_ids) == 8
    for index, category in enumerate(evaluation.category_ids.tolist()):
        mine = judged.detections.category_ids == category
        objects = ((truth.annotations.category_ids == category) & ~truth.annotations.ignored).sum()
        found = average_precision(judged.detections.scores[mine], judged.correct[mine], int(objects))
        assert found == pytest.approx(evaluation.precision[0, :, index, 0, 0].mean(), abs=1e-9)
    assert 0 < judged.correct.sum() < len(judged.correct) < len(results)


def test_only_the_best_detection_of_an_object_is_right() -> None:
    truth = prepare_truth(load_ground_truth(scene([(1, 1, "a"), (1, 2, "b")], neg={1: [3]}, not_exhaustive={1: [2]})))
    results = [
        detection(1, 1, "a", 0.5),
        detection(1, 1, "a", 0.9, shift=2),  # better, so the first is wrong
        detection(1, 2, "a", 0.8),  # wrong, but not all of its class are annotated
        detection(1, 2, "b", 0.7),
        detection(1, 3, "b", 0.6),  # known to be absent
        detection(1, 4, "b", 0.9),  # not judged
        detection(2, 1, "a", 0.9),  # not judged in this image
    ]
    judged = judge(truth, load_results(results, truth))
    found = list(
        zip(judged.detections.category_ids.tolist(), judged.detections.scores.tolist(), judged.correct.tolist())
    )
    assert found == [(1, 0.9, True), (1, 0.5, False), (2, 0.7, True), (3, 0.6, False)]


def test_an_object_is_called_what_scores_highest_on_it() -> None:
    truth = load_ground_truth(scene([(1, 3, "a"), (1, 3, "b"), (2, 1, "a"), (2, 4, "c")]))
    results = [
        detection(1, 3, "a", 0.3),
        detection(1, 1, "a", 0.6, shift=3),
        detection(1, 3, "b", 0.6),
        detection(1, 2, "b", 0.9, shift=12),  # overlaps too little
        detection(2, 2, "a", 0.2),
        detection(1, 4, "c", 0.9),  # in the other image
    ]
    assert called(truth.annotations, load_results(results, truth)).tolist() == [1, 2, 4, -1]
    figures = analyse("run", truth, load_results(results, truth), image_counts=dict.fromkeys(NAMES, 5))
    rows = {"r": [1, 0, 0, 1, 1], "c": [0, 0, 0, 0, 0], "f": [0, 0, 1, 0, 0]}  # own, rare, common, frequent, none
    assert figures.confusion.counts.tolist() == [rows[group] for group in "rcf"]
    pair = figures.confusion.pairs[0]
    assert (pair.name, pair.called, pair.called_group, pair.count, pair.objects) == ("leaf", "gear", "f", 1, 2)
    assert len(figures.confusion.pairs) == 1  # what frequent classes are called is left out


def test_without_detections_no_object_is_found() -> None:
    truth = load_ground_truth(scene([(1, 1, "a"), (2, 2, "b")]))
    figures = analyse("run", truth, load_results([], truth), image_counts={})
    assert figures.confusion.counts[:, -1].tolist() == [0, 1, 1]
    assert figures.confusion.pairs == ()
    assert math.isnan(figures.calibration["f"].error)
    assert figures.metrics["AP"] == 0


def test_calibration_is_precision_by_score_in_each_group() -> None:
    truth = load_ground_truth(scene([(1, 1, "a"), (1, 1, "b"), (1, 3, "c")], neg={2: [1, 3]}))
    results = [
        detection(1, 1, "a", 0.92),
        detection(2, 1, "a", 0.98),
        detection(1, 1, "b", 0.25),
        detection(1, 3, "c", 1.0),
        detection(2, 4, "c", 0.9),
    ]
    found = analyse("run", truth, load_results(results, truth), image_counts={}).calibration
    assert found["f"].counts.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 2]
    assert found["f"].precision[[2, 9]].tolist() == [1, 0.5]
    assert math.isnan(found["f"].precision[0])
    assert found["f"].scores[[2, 9]] == pytest.approx([0.25, 0.95])
    assert found["f"].error == pytest.approx((0.75 + 2 * 0.45) / 3)
    assert found["r"].counts[9] == 1
    assert found["r"].error == 0
    assert found["c"].counts.sum() == 0


def test_classes_are_ranked_and_carry_their_counts() -> None:
    truth = load_ground_truth(scene([(1, 1, "a"), (1, 3, "b"), (2, 3, "c")], neg={2: [1]}))
    results = [detection(1, 1, "a", 0.9), detection(2, 3, "c", 0.8)]
    detections = load_results(results, truth)
    positives = {"one_to_one": {1: 70, 3: 4}, "one_to_many": {1: 300, 3: 24}}
    figures = analyse("run", truth, detections, image_counts={1: 500, 2: 60, 3: 4, 4: 9}, positives=positives)
    assert [each.name for each in figures.classes] == ["gear", "star", "moth", "leaf"]
    assert [each.objects for each in figures.classes] == [1, 0, 0, 2]
    assert [each.one_to_many for each in figures.classes] == [300, 0, 0, 24]
    expected = evaluate_lvis(truth, results)["bbox"]
    assert [each.ap for each in figures.classes] == pytest.approx(
        [expected[f"AP-{each.name}"] for each in figures.classes], nan_ok=True
    )
    assert figures.metrics == pytest.approx({n: v for n, v in expected.items() if "-" not in n}, nan_ok=True)
    best, worst = best_and_worst(figures, 1)
    assert best[0].name == "gear"
    assert worst[0].name == "leaf"
    assert {each.one_to_one for each in analyse("run", truth, detections, image_counts={}).classes} == {None}


def test_classes_of_unknown_frequency_are_refused() -> None:
    content = scene([(1, 1, "a")])
    del content["categories"][0]["frequency"]
    truth = load_ground_truth(content)
    with pytest.raises(GroundTruthError, match="give the training file"):
        analyse("run", truth, load_results([], truth), image_counts={})

"""AP on weighted images against the evaluation of a dataset in which images are repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hdetr_d2.evaluation import Detections
from hdetr_d2.evaluation.bootstrap import ResampledAP, class_groups, drawn_weights
from hdetr_d2.evaluation.coco import evaluate_coco
from hdetr_d2.evaluation.ground_truth import GroundTruth, load_ground_truth

IMAGES, CLASSES = 24, 6


def dataset(seed: int = 0) -> tuple[GroundTruth, Detections]:
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    found: list[tuple[int, int, list[float], float]] = []
    for image in range(1, IMAGES + 1):
        for _ in range(int(rng.integers(1, 8))):
            category = int(rng.integers(1, CLASSES + 1))
            box = [*rng.uniform(0, 60, 2).tolist(), *rng.uniform(15, 40, 2).tolist()]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box})
            if rng.random() < 0.8:
                moved = (np.array(box) + rng.normal(0, 2, 4)).tolist()
                found.append((image, category, moved, float(rng.uniform(0.3, 1))))
        found.append((image, int(rng.integers(1, CLASSES + 1)), [5.0, 5.0, 20.0, 20.0], float(rng.uniform(0, 0.8))))
    truth = load_ground_truth(
        {
            "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(1, IMAGES + 1)],
            "categories": [{"id": i, "name": f"c{i}"} for i in range(1, CLASSES + 1)],
            "annotations": annotations,
        }
    )
    images, categories, boxes, scores = (np.array(column) for column in zip(*found))
    return truth, Detections(images, categories, boxes, scores)


def scored(truth: GroundTruth, detections: Detections) -> ResampledAP:
    return ResampledAP(truth, detections, style="coco", max_dets=100)


def test_on_all_images_it_is_nearly_the_metric() -> None:
    truth, detections = dataset()
    aps = scored(truth, detections).class_aps(np.ones((1, IMAGES)))[0]
    metrics = evaluate_coco(truth, detections)["bbox"]
    assert float(np.mean(aps)) == pytest.approx(metrics["AP"], abs=1.0)


def test_a_weight_is_a_repetition_of_the_image() -> None:
    truth, detections = dataset(1)
    weights = np.ones((1, IMAGES))
    weights[0, [2, 5]], weights[0, 7] = 3.0, 0.0
    weighted = scored(truth, detections).class_aps(weights)[0]
    copies = [(row, 1000 * copy) for row in range(IMAGES) for copy in range(int(weights[0, row]))]
    parts, others = [], []
    for row, offset in copies:
        here = truth.annotations.select(truth.annotations.image_ids == row + 1)
        parts.append(replace(here, image_ids=here.image_ids + offset))
        of_image = detections.select(detections.image_ids == row + 1)
        # A tie of a copy with itself is one of one image: what comes first is equal.
        others.append(replace(of_image, image_ids=of_image.image_ids + offset))
    repeated = replace(
        truth,
        image_ids=np.array([row + 1 + offset for row, offset in copies]),
        annotations=type(parts[0])(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in part_names(parts[0]))
        ),
    )
    whole = scored(repeated, Detections.concatenate(others)).class_aps(np.ones((1, len(copies))))[0]
    # Copies share their scores: between them the curve has points that weights do not have.
    np.testing.assert_allclose(weighted, whole, atol=2.5)


def part_names(part: Any) -> list[str]:
    return list(part.__dataclass_fields__)


def test_groups_are_thirds_by_objects_and_drawings_repeat() -> None:
    truth, detections = dataset(2)
    objects = scored(truth, detections).objects()
    groups = class_groups(truth, objects)
    assert list(groups) == ["fewest objects", "middle", "most objects"]
    assert objects[groups["fewest objects"]].max() <= objects[groups["most objects"]].min()
    assert class_groups(truth, np.array([3.0, 0, 0, 0, 0, 0])) == {}
    np.testing.assert_array_equal(drawn_weights(30, 5), drawn_weights(30, 5))
    assert (drawn_weights(30, 5).sum(1) == 30).all()

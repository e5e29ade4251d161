"""Which detections are asked for, as Detector selects them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.detector.detections import select as select_instances
from hdetr_d2.runtime.detections import select


@pytest.mark.parametrize("count", [0, 1, 200])
@pytest.mark.parametrize("suppress", [None, 0.3, 1.0])
@pytest.mark.parametrize("max_detections", [None, 7])
def test_it_selects_what_the_detector_selects(count: int, suppress: float | None, max_detections: int | None) -> None:
    drawing = np.random.default_rng(count)
    corners = drawing.uniform(0, 40, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + drawing.uniform(5, 30, (count, 2)).astype(np.float32)], axis=1)
    scores = drawing.permutation(np.linspace(0.01, 0.99, count)).astype(np.float32)
    labels = drawing.integers(0, 3, count)
    thresholds = np.array([0.0, 0.2, 0.5], np.float32)
    chosen = select(scores, labels, boxes, thresholds=thresholds, suppress=suppress, max_detections=max_detections)
    instances = Instances((100, 100))
    instances.pred_boxes, instances.scores = Boxes(torch.from_numpy(boxes)), torch.from_numpy(scores)
    instances.pred_classes, instances.place = torch.from_numpy(labels), torch.arange(count)
    expected = select_instances(
        instances, thresholds=torch.from_numpy(thresholds), suppress=suppress, max_detections=max_detections
    )
    assert chosen.tolist() == expected.place.tolist()

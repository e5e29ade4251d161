"""Suppression of duplicates, on detections made by hand."""

import numpy as np

from hdetr_d2.evaluation.detections import Detections
from hdetr_d2.evaluation.duplicates import suppress


def test_only_worse_boxes_of_the_same_image_and_class_go() -> None:
    box, moved, elsewhere = [10, 10, 20, 20], [11, 10, 20, 20], [60, 60, 20, 20]
    detections = Detections(
        image_ids=np.array([1, 1, 1, 2, 1]),
        category_ids=np.array([5, 5, 6, 5, 5]),
        boxes=np.array([moved, box, box, box, elsewhere], dtype=np.float64),
        scores=np.array([0.4, 0.9, 0.3, 0.2, 0.1]),
    )
    kept = suppress(detections, 0.6)
    assert kept.scores.tolist() == [0.9, 0.3, 0.2, 0.1]
    assert kept.image_ids.tolist() == [1, 1, 2, 1]
    assert np.array_equal(detections.boxes[0], moved)  # the argument is as it was
    assert len(suppress(Detections.empty(), 0.6)) == 0

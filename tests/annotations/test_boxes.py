"""Boxes in NumPy, against pycocotools."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from hdetr_d2.annotations import pairwise_iou, xywh_to_xyxy, xyxy_to_xywh


def test_iou_is_that_of_coco_s_metrics() -> None:
    rng = np.random.default_rng(0)
    boxes, others = (np.concatenate([rng.uniform(0, 50, (n, 2)), rng.uniform(1, 40, (n, 2))], axis=1) for n in (30, 20))
    assert np.array_equal(pairwise_iou(boxes, others), coco_mask.iou(boxes, others, np.zeros(20, dtype=np.uint8)))


def test_boxes_without_area_have_no_iou_and_none_at_all_work() -> None:
    point = np.array([[5.0, 5.0, 0.0, 0.0]])
    assert pairwise_iou(point, point).tolist() == [[0.0]]
    assert pairwise_iou(np.empty((0, 4)), point).shape == (0, 1)


def test_formats_are_each_other_s_inverse() -> None:
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert xywh_to_xyxy(boxes).tolist() == [[1, 2, 4, 6]]
    assert xyxy_to_xywh(xywh_to_xyxy(boxes)).tolist() == boxes.tolist()

"""From predictions to detections."""

import math

import pytest
import torch
from torch import Tensor

from hdetr_d2.modeling import to_instances, top_detections


def sorted_pairs(logits: Tensor, boxes: Tensor) -> list[tuple[float, int, list[float]]]:
    """All (score, class, XYXY box) of one image in plain Python, best first."""
    pairs = []
    for row, (cx, cy, w, h) in zip(logits.tolist(), boxes.tolist()):
        for label, logit in enumerate(row):
            pairs.append((1 / (1 + math.exp(-logit)), label, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
    return sorted(pairs, key=lambda pair: -pair[0])


@pytest.mark.parametrize(("wanted", "got"), [(7, 7), (24, 24), (100, 24)])
def test_detections_are_the_best_pairs_of_query_and_class(wanted: int, got: int) -> None:
    logits, boxes = torch.randn(2, 8, 3), torch.rand(2, 8, 4)
    scores, labels, corners = top_detections(logits, boxes, wanted)
    assert scores.shape == (2, got)
    for image in range(2):
        for place, (score, label, box) in enumerate(sorted_pairs(logits[image], boxes[image])[:got]):
            assert scores[image, place].item() == pytest.approx(score, rel=1e-5)
            assert labels[image, place].item() == label
            assert corners[image, place].tolist() == pytest.approx(box, abs=1e-6)


def test_instances_have_the_asked_size_and_boxes_inside_it() -> None:
    boxes = torch.tensor([[[0.25, 0.5, 0.75, 1.0], [-0.1, 0.2, 0.5, 1.3]]])
    (instances,) = to_instances(torch.tensor([[0.9, 0.1]]), torch.tensor([[3, 1]]), boxes, [(100, 200)])
    assert instances.image_size == (100, 200)
    torch.testing.assert_close(
        instances.pred_boxes.tensor, torch.tensor([[50.0, 50.0, 150.0, 100.0], [0.0, 20.0, 100.0, 100.0]])
    )
    assert instances.pred_classes.tolist() == [3, 1]
    assert instances.scores.tolist() == pytest.approx([0.9, 0.1])

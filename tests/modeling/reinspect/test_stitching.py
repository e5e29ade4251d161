"""Stitching of cells' predictions: what each case of the rule accepts."""

import pytest
import torch
from torch import Tensor

from hdetr_d2.modeling.reinspect.stitching import stitch


def cells(*predictions: list[tuple[float, float, float, float, float]]) -> tuple[Tensor, Tensor]:
    """(cx, cy, w, h, confidence) of the predictions of each cell, filled up with ones that nothing is sure of."""
    most = max(len(cell) for cell in predictions)
    table = torch.tensor([cell + [(0.0, 0.0, 1.0, 1.0, 0.0)] * (most - len(cell)) for cell in predictions])
    return table[..., :4], table[..., 4]


def accepted(*predictions: list[tuple[float, float, float, float, float]]) -> list[tuple[float, ...]]:
    """(cx, cy, w, h, score) of what is accepted, rounded."""
    boxes, scores = stitch(*cells(*predictions))
    rows = torch.cat([boxes, scores[:, None]], dim=1).tolist()
    return [tuple(round(x, 4) for x in row) for row in rows]


def test_objects_that_do_not_touch_are_all_accepted_best_first() -> None:
    a, b, c = (10, 10, 8, 8, 0.5), (50, 10, 8, 8, 0.9), (90, 10, 8, 8, 0.06)
    assert accepted([a], [b, c]) == [b, a, c]


def test_predictions_below_the_last_sweep_are_gone() -> None:
    assert accepted([(10, 10, 8, 8, 0.04)]) == []


def test_two_of_one_cell_are_two_objects_even_where_they_overlap() -> None:
    a, b = (10, 10, 8, 8, 0.9), (12, 10, 8, 8, 0.85)
    assert accepted([a, b]) == [a, b]


def test_a_second_cells_prediction_of_the_same_object_is_dropped() -> None:
    a, again = (10, 10, 8, 8, 0.9), (11, 10, 8, 8, 0.85)
    assert accepted([a], [again]) == [a]


def test_a_surer_prediction_of_a_later_cell_takes_the_place_and_the_score() -> None:
    a, surer = (10, 10, 8, 8, 0.82), (10.5, 10, 8, 8, 0.95)
    assert accepted([a], [surer]) == [(10.5, 10, 8, 8, 0.82)]


def test_a_surer_prediction_that_hardly_overlaps_is_dropped() -> None:
    a, surer = (10, 10, 8, 8, 0.82), (16, 10, 8, 8, 0.95)
    assert accepted([a], [surer]) == [a]


def test_a_cell_with_two_objects_beside_an_accepted_one_adds_the_other() -> None:
    # Both touch what is accepted, which the nearer one accounts for: the case that suppression by overlap gets wrong.
    a = (10, 10, 10, 10, 0.9)
    near, other = (11, 10, 10, 10, 0.85), (16, 10, 10, 10, 0.84)
    assert accepted([a], [near, other]) == [a, other]


def test_a_later_sweep_does_not_accept_again_what_was_dropped() -> None:
    a, again = (10, 10, 10, 10, 0.99), (11, 10, 10, 10, 0.97)
    assert accepted([a], [again]) == [a]
    assert accepted([a], [again, (60, 10, 8, 8, 0.3)]) == [a, (60, 10, 8, 8, 0.3)]


def test_no_prediction_is_accepted_twice_where_boxes_of_a_cell_are_equal() -> None:
    # In the second sweep each may be matched to the other, so that the surer one takes the place of the other.
    result = accepted([(10, 10, 8, 8, 0.85), (10, 10, 8, 8, 0.9)], [(10, 10, 8, 8, 0.88)])
    assert len(result) == len(set(result)) > 0


def test_boxes_that_are_not_finite_are_left_out() -> None:
    a = (10, 10, 8, 8, 0.9)
    assert accepted([a, (float("nan"), 10, 8, 8, 0.95)]) == [a]


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (3, 2)])
def test_nothing_predicted_is_nothing_accepted(shape: tuple[int, int]) -> None:
    boxes, scores = stitch(torch.zeros(*shape, 4), torch.zeros(shape))
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_many_cells_that_see_the_same_objects_leave_one_of_each() -> None:
    objects = torch.rand(12, 2) * 20 + 30 * torch.stack([torch.arange(12) % 4, torch.arange(12) // 4], dim=1)
    boxes = torch.cat([objects, torch.full((12, 2), 9.0)], dim=1)
    seen = boxes.expand(6, 12, 4) + 0.5 * torch.randn(6, 12, 4)
    kept, _ = stitch(seen, 0.5 + 0.5 * torch.rand(6, 12))
    assert len(kept) == 12
    assert torch.cdist(boxes, kept).min(1).values.max() < 5

"""Lexicographic matching against all assignments, compared as tuples."""

import itertools

import pytest
import torch
from torch import Tensor

from hdetr_d2.matching import LexicographicMatcher
from hdetr_d2.matching.lexicographic import LexicographicCost
from hdetr_d2.matching.step import MatchRequest, match_step
from hdetr_d2.structures import Predictions, Targets


def draw(predictions: int, targets: int) -> tuple[Tensor, Tensor]:
    """Boxes in pixels around a cell; about half of the centres are inside some target."""
    target_boxes = torch.cat([40 * torch.rand(targets, 2) - 20, 10 + 30 * torch.rand(targets, 2)], dim=1)
    boxes = torch.cat([60 * torch.rand(predictions, 2) - 30, 10 + 30 * torch.rand(predictions, 2)], dim=1)
    return boxes, target_boxes


def match(matcher: LexicographicMatcher, boxes: Tensor, target_boxes: Tensor) -> dict[int, int]:
    """Target of each matched prediction."""
    labels = torch.zeros(len(target_boxes), dtype=torch.int64)
    queries, targets = matcher(torch.zeros(len(boxes), 1), boxes, labels, target_boxes)
    return dict(zip(queries.tolist(), targets.tolist()))


def value(pairs: dict[int, int], boxes: Tensor, target_boxes: Tensor) -> tuple[int, int, float]:
    """What the paper minimises, the most important first."""
    outside, distance = 0, 0.0
    for query, target in pairs.items():
        dx, dy = (boxes[query, :2] - target_boxes[target, :2]).abs().tolist()
        width, height = target_boxes[target, 2:].tolist()
        outside += dx > width / 2 or dy > height / 2
        distance += (boxes[query] - target_boxes[target]).abs().sum().item()
    return outside, sum(pairs), distance


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("predictions", "targets"), [(5, 1), (5, 3), (5, 5), (3, 5)])
def test_the_match_is_the_least_of_all_assignments(predictions: int, targets: int, seed: int) -> None:
    torch.manual_seed(seed)
    boxes, target_boxes = draw(predictions, targets)
    if predictions >= targets:
        candidates = [
            dict(zip(queries, range(targets))) for queries in itertools.permutations(range(predictions), targets)
        ]
    else:
        candidates = [
            dict(zip(range(predictions), chosen)) for chosen in itertools.permutations(range(targets), predictions)
        ]
    best = min(value(pairs, boxes, target_boxes) for pairs in candidates)
    found = match(LexicographicMatcher(), boxes, target_boxes)
    assert len(found) == min(predictions, targets)
    assert value(found, boxes, target_boxes) == pytest.approx(best, rel=1e-5)


def test_a_centre_inside_matters_more_than_order_and_order_more_than_distance() -> None:
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    far = torch.tensor([[50.0, 0.0, 10.0, 10.0]])
    inside = torch.tensor([[4.9, 4.9, 99.0, 99.0]])
    exact = target
    assert match(LexicographicMatcher(), torch.cat([far, inside]), target) == {1: 0}
    assert match(LexicographicMatcher(), torch.cat([inside, exact]), target) == {0: 0}
    assert match(LexicographicMatcher(), torch.cat([far, far]), target) == {0: 0}


def test_first_k_permutes_the_first_predictions_only() -> None:
    target_boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor([[29.0, 0.0, 10.0, 10.0], [9.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    assert match(LexicographicMatcher(order="first_k"), boxes, target_boxes) == {0: 1, 1: 0}


@pytest.mark.parametrize(("predictions", "targets"), [(5, 3), (2, 4), (5, 5)])
def test_fixed_order_gives_each_prediction_the_target_of_its_number(predictions: int, targets: int) -> None:
    found = match(LexicographicMatcher(order="fixed"), *draw(predictions, targets))
    assert found == {i: i for i in range(min(predictions, targets))}


@pytest.mark.parametrize("order", ["free", "first_k", "fixed"])
def test_many_cells_are_costed_as_one_by_one(order: str) -> None:
    cost = LexicographicCost(order=order)
    drawn = [draw(5, 3) for _ in range(4)]
    boxes, target_boxes = (torch.stack(x) for x in zip(*drawn))
    none, labels = torch.zeros(4, 5, 1), torch.zeros(3, dtype=torch.int64)
    together = cost(none, boxes, labels, target_boxes)
    assert together.dtype == torch.float64
    assert torch.equal(together, torch.stack([cost(none[0], *(b, labels, t)) for b, t in drawn]))


def test_predictions_that_are_not_finite_are_never_matched() -> None:
    boxes, target_boxes = draw(5, 4)
    boxes[[0, 2], [1, 3]] = torch.tensor([torch.nan, torch.inf])
    assert set(match(LexicographicMatcher(), boxes, target_boxes)) == {1, 3, 4}


def test_a_step_of_a_detector_can_be_matched_so_too() -> None:
    predictions = Predictions(torch.zeros(1, 2, 6, 3), torch.rand(1, 2, 6, 4))
    targets = [Targets(torch.zeros(n, dtype=torch.int64), torch.rand(n, 4)) for n in (3, 0)]
    (matches,) = match_step([MatchRequest(predictions, [LexicographicMatcher(order="fixed", largest=4.0)], targets)])
    assert (matches.row.tolist(), matches.target.tolist()) == ([0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("options", [{"order": "best"}, {"largest": 0.0}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"order|largest"):
        LexicographicMatcher(**options)

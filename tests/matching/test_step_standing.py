"""Predictions that may not be matched."""

import logging

import pytest
import torch
from torch import Tensor

from hdetr_d2.matching import HungarianMatcher, Matcher, MatchingCost, OneToManyMatcher
from hdetr_d2.matching.lexicographic import LexicographicMatcher
from hdetr_d2.matching.step import MatchRequest, match_step
from hdetr_d2.structures import Predictions
from tests.matching.test_step import draw_predictions, draw_targets, triples


class OneByOne(Matcher):
    """The Hungarian matcher as somebody else's, who is called for one image at a time."""

    one_to_one = True

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return HungarianMatcher()(logits, boxes, labels, target_boxes)


class Greedy(HungarianMatcher):
    """Not optimal: the cheapest pair first."""

    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        cost, pairs = cost.clone(), []
        for _ in range(min(cost.shape)):
            place = int(cost.nan_to_num(torch.inf).argmin())
            row, column = divmod(place, cost.shape[1])
            if not cost[row, column].isfinite():
                break
            pairs.append((row, column))
            cost[row], cost[:, column] = torch.inf, torch.inf
        rows, columns = torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2).unbind(1)
        return rows, columns


MATCHERS = [HungarianMatcher(), LexicographicMatcher(), OneByOne(), Greedy(), OneToManyMatcher(k=2)]


@pytest.mark.parametrize("matcher", MATCHERS)
def test_those_that_do_not_stand_are_as_if_they_were_not_there(matcher: Matcher) -> None:
    predictions, targets = draw_predictions(2, 3, 12), draw_targets(3, 0, 2)
    stands = torch.rand(2, 3, 12) < 0.5
    stands[..., :5] = True
    (found,) = match_step([MatchRequest(predictions, [matcher] * 2, targets, stands=stands)])
    expected = set()
    for layer in range(2):
        for image, first in ((0, 0), (2, 3)):
            rows = stands[layer, image].nonzero()[:, 0]
            some = Predictions(*(x[layer, image, rows][None, None] for x in (predictions.logits, predictions.boxes)))
            (alone,) = match_step([MatchRequest(some, [matcher], [targets[image]])])
            expected |= {(layer, image * 12 + int(rows[row]), first + target) for _, row, target in triples(alone)}
    assert triples(found) == expected


@pytest.mark.parametrize("matcher", MATCHERS)
def test_targets_that_too_few_stand_for_go_without(matcher: Matcher, caplog: pytest.LogCaptureFixture) -> None:
    predictions, targets = draw_predictions(1, 2, 8), draw_targets(5, 4)
    stands = torch.zeros(1, 2, 8, dtype=torch.bool)
    stands[0, 0, [2, 6]] = True
    with caplog.at_level(logging.WARNING):
        (found,) = match_step([MatchRequest(predictions, [matcher], targets, stands=stands)])
    assert sorted(row for _, row, _ in triples(found)) == [2, 6]
    assert found.unmatchable == 0
    assert not caplog.records


def test_what_is_not_finite_is_still_counted_and_nothing_else() -> None:
    predictions, targets = draw_predictions(2, 2, 6), draw_targets(2, 0)
    predictions.boxes[1, :, 3] = torch.nan
    stands = torch.ones(2, 2, 6, dtype=torch.bool)
    stands[:, :, 4] = False
    (found,) = match_step([MatchRequest(predictions, [HungarianMatcher()] * 2, targets, stands=stands)])
    assert found.unmatchable == 1  # images without targets are not looked at


def test_costs_that_read_no_box_know_who_does_not_stand() -> None:
    cost = MatchingCost(l1_weight=0.0, giou_weight=0.0)
    predictions, targets = draw_predictions(1, 1, 6), draw_targets(3)
    stands = torch.tensor([[[True, False, True, False, True, False]]])
    (found,) = match_step([MatchRequest(predictions, [HungarianMatcher(cost=cost)], targets, stands=stands)])
    assert {row for _, row, _ in triples(found)} == {0, 2, 4}


def test_groups_of_a_step_stand_each_for_itself() -> None:
    predictions, targets = draw_predictions(1, 1, 6), draw_targets(2)
    few = torch.tensor([[[False, False, True, True, False, False]]])
    stands = [None, few, None, ~few]
    requests = [MatchRequest(predictions, [HungarianMatcher()], targets, stands=x) for x in stands]
    found = [triples(one) for one in match_step(requests)]
    assert found[0] == found[2]
    assert {row for _, row, _ in found[1]} == {2, 3}
    assert not {row for _, row, _ in found[3]} & {2, 3}

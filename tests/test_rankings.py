import math

import pytest
import torch
from torch import nn

from tests.rankings import MARGIN, Rankings, calibrate, decided, smallest_gap


def test_a_gap_is_measured_among_what_is_read_of_a_ranking_and_the_first_that_is_not() -> None:
    scores = torch.tensor([4.0, 1.0, 3.0, 1.0])
    assert smallest_gap(scores, 1) == 0.25
    assert smallest_gap(scores, 2) == 0.25
    assert smallest_gap(scores, 3) == 0.0
    assert smallest_gap(torch.tensor([1.0, -math.inf, -math.inf]), 3) == math.inf


@pytest.mark.parametrize("gap", [0.0, MARGIN / 4, MARGIN * 4])
def test_topk_sort_and_argsort_are_watched_in_either_direction(gap: float) -> None:
    scores = torch.tensor([[1.0, 0.5], [1.0, 1 - gap]])
    calls = [
        lambda: scores.topk(1, dim=1),
        lambda: torch.topk(-scores.T, 1, dim=0, largest=False),
        lambda: scores.argsort(dim=1),
        lambda: torch.sort(scores, dim=1, stable=True, descending=True),
    ]
    for call in calls:
        with Rankings() as rankings:
            call()
        assert rankings.count == 1
        assert rankings.smallest == pytest.approx(gap, abs=1e-7)


def test_draws_that_are_ties_are_passed_over_and_a_model_that_gives_nothing_else_is_refused() -> None:
    draws = iter([torch.ones(3), torch.tensor([1.0, 2.0, 3.0])])
    assert decided(lambda: next(draws), lambda x: x.topk(2)).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(AssertionError, match="the scores of 20 draws are ranked by gaps of"):
        decided(lambda: torch.ones(3), lambda x: x.topk(2))
    with pytest.raises(AssertionError, match="nothing was ranked"):
        decided(lambda: torch.ones(3), lambda x: x.sum())


def test_a_calibrated_model_normalises_what_it_was_calibrated_with() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    x = 5 + torch.rand(2, 3, 8, 8)
    calibrate(model, lambda: model(x))
    y = model(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert 0.9 < y.std() < 1.1

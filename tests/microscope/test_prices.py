"""Dual prices against what solving the larger problem costs more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from hdetr_d2.matching.solver import solve_many
from hdetr_d2.microscope import query_prices


def least(cost: np.ndarray, demand: list[int]) -> float:
    repeated = np.repeat(cost, demand, axis=1)
    rows, columns = linear_sum_assignment(repeated)
    return float(repeated[rows, columns].sum())


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("targets", [1, 4, 6])
@pytest.mark.parametrize("crowded", [False, True])
def test_a_price_is_what_one_query_more_raises_the_optimum_by(k: int, targets: int, crowded: bool) -> None:
    rng = np.random.default_rng(targets + 10 * k)
    cost = rng.normal(size=(24, targets))
    if crowded:  # all targets want the same queries
        cost = cost * 0.1 + np.linspace(0, 5, 24)[:, None]
    cost = np.round(cost * 64) / 64  # exact in float32
    (solution,) = solve_many([torch.from_numpy(cost).float()], [k])
    prices = query_prices(torch.from_numpy(cost).float(), solution)
    before = least(cost, [k] * targets)
    for target, price in enumerate(prices.tolist()):
        demand = [k + (other == target) for other in range(targets)]
        assert price == pytest.approx(least(cost, demand) - before, abs=1e-5)


def test_without_a_query_left_a_price_is_infinite() -> None:
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    (solution,) = solve_many([cost], [1])
    assert query_prices(cost, solution).tolist() == [float("inf"), float("inf")]


def test_impossible_pairs_are_no_way_to_a_query() -> None:
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0], [float("inf"), 3.0], [float("nan"), float("nan")]])
    (solution,) = solve_many([cost], [1])
    # The first target takes the second one's query for 1, which takes the third for 3 in place of 0.
    assert query_prices(cost, solution).tolist() == [4.0, 3.0]

"""Hungarian and one-to-many matching against brute force and SciPy on the repeated matrix."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hdetr_d2.matching import HungarianMatcher, MatchingCost, OneToManyMatcher, solve_one_to_many
from hdetr_d2.registry import MATCHER_REGISTRY


def total(cost: Tensor, rows: Tensor, columns: Tensor) -> float:
    return cost[rows, columns].double().sum().item()


def total_of_scipy(cost: Tensor) -> float:
    rows, columns = linear_sum_assignment(cost.double().numpy())
    return total(cost, torch.from_numpy(rows), torch.from_numpy(columns))


def assert_valid(rows: Tensor, columns: Tensor, *, shape: tuple[int, int], k: int) -> None:
    """Each query once, in ascending order; each target at most k times; int64 on the CPU."""
    assert rows.dtype == columns.dtype == torch.int64
    assert rows.device.type == columns.device.type == "cpu"
    assert rows.shape == columns.shape
    assert rows.tolist() == sorted(set(rows.tolist()))
    if len(rows):
        assert rows.min() >= 0
        assert rows.max() < shape[0]
        assert columns.min() >= 0
        assert columns.max() < shape[1]
        assert columns.bincount().max() <= k


@pytest.mark.parametrize(("queries", "targets"), [(6, 3), (4, 4), (3, 5), (5, 1), (1, 1)])
def test_hungarian_matching_costs_what_the_best_permutation_costs(queries: int, targets: int) -> None:
    matcher = HungarianMatcher()
    for _ in range(5):
        cost = torch.randn(queries, targets)
        rows, columns = matcher.solve(cost)
        assert_valid(rows, columns, shape=(queries, targets), k=1)
        assert len(rows) == min(queries, targets)
        if queries >= targets:
            best = min(
                sum(cost[q, t].item() for t, q in enumerate(chosen))
                for chosen in itertools.permutations(range(queries), targets)
            )
        else:
            best = min(
                sum(cost[q, t].item() for q, t in enumerate(chosen))
                for chosen in itertools.permutations(range(targets), queries)
            )
        assert total(cost, rows, columns) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("num_targets", [0, 1, 7])
@pytest.mark.parametrize("num_queries", [0, 1, 10, 50])
def test_one_to_many_costs_what_scipy_finds_on_the_repeated_matrix(k: int, num_targets: int, num_queries: int) -> None:
    cost = torch.randn(num_queries, num_targets)
    rows, columns = solve_one_to_many(cost, k)
    assert_valid(rows, columns, shape=(num_queries, num_targets), k=k)
    assert len(rows) == min(num_queries, k * num_targets)
    assert total(cost, rows, columns) == pytest.approx(total_of_scipy(cost.repeat(1, k)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_ties_are_solved_as_cheaply_as_scipy_does(k: int) -> None:
    for levels in (1, 2, 3):
        cost = torch.randint(levels, (20, 5)).float()
        rows, columns = solve_one_to_many(cost, k)
        assert_valid(rows, columns, shape=(20, 5), k=k)
        assert len(rows) == 5 * k
        assert total(cost, rows, columns) == total_of_scipy(cost.repeat(1, k))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_float_type_is_solved(dtype: torch.dtype) -> None:
    cost = torch.randn(9, 4).to(dtype)
    rows, columns = solve_one_to_many(cost, 2)
    assert total(cost, rows, columns) == pytest.approx(total_of_scipy(cost.repeat(1, 2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("k", [1, 3])
def test_a_query_whose_cost_is_not_finite_is_left_out_and_the_rest_is_solved(bad: float, k: int) -> None:
    cost = torch.randn(12, 3)
    cost[[1, 5]] = bad
    rows, columns = solve_one_to_many(cost, k)
    good = torch.tensor([i for i in range(12) if i not in (1, 5)])
    assert_valid(rows, columns, shape=(12, 3), k=k)
    assert not {1, 5} & set(rows.tolist())
    assert len(rows) == min(10, 3 * k)
    assert total(cost, rows, columns) == pytest.approx(total_of_scipy(cost[good].repeat(1, k)), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_single_pairs_that_are_not_finite_are_avoided_at_any_price(bad: float) -> None:
    # Both queries prefer target 0, but only query 0 may have it.
    cost = torch.tensor([[0.0, 1e4], [bad, 1.0]])
    rows, columns = solve_one_to_many(cost, 1)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 1])
    cost = torch.tensor([[-1e6, 1e6], [-1e6, bad]])
    rows, columns = solve_one_to_many(cost, 1)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("k", [1, 4])
def test_nothing_is_matched_where_nothing_is_finite(bad: float, k: int) -> None:
    rows, columns = solve_one_to_many(torch.full((5, 2), bad), k)
    assert len(rows) == len(columns) == 0


def test_costs_near_the_largest_float_are_solved() -> None:
    cost = torch.tensor([[3e38, -3e38], [-3e38, math.nan], [3e38, 3e38]])
    rows, columns = solve_one_to_many(cost, 1)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_what_is_asked_wrongly_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        solve_one_to_many(torch.zeros(3, 3), 0)
    with pytest.raises(ValueError, match=r"two-dimensional|shape"):
        solve_one_to_many(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="k must be at least 1, got -1"):
        OneToManyMatcher(k=-1)


@pytest.mark.parametrize("k", [1.5, True, "2", None])
def test_k_that_is_no_whole_number_and_costs_that_are_complex_are_refused(k: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="solve_one_to_many: k must be"):
        solve_one_to_many(torch.zeros(3, 2), k)
    with pytest.raises(ValueError, match=r"cost must be real, got torch\.complex64"):
        solve_one_to_many(torch.zeros(3, 2, dtype=torch.complex64), 1)


@pytest.mark.parametrize("matcher", [HungarianMatcher(), OneToManyMatcher(k=2)])
def test_a_matcher_finds_the_queries_that_look_like_the_targets(matcher: Any) -> None:
    targets, labels = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.7, 0.6, 0.3, 0.2]]), torch.tensor([2, 0])
    boxes, logits = torch.full((6, 4), 0.5), torch.full((6, 3), -5.0)
    copies = 1 if isinstance(matcher, HungarianMatcher) else 2
    for query, target in list(zip((4, 1, 0, 5), (0, 1, 0, 1)))[: 2 * copies]:
        boxes[query] = targets[target] + 0.01 * query
        logits[query, labels[target]] = 5.0
    queries, chosen = matcher(logits, boxes, labels, targets)
    expected = {4: 0, 1: 1} if copies == 1 else {4: 0, 1: 1, 0: 0, 5: 1}
    assert dict(zip(queries.tolist(), chosen.tolist())) == expected


@pytest.mark.parametrize("matcher", [HungarianMatcher(), OneToManyMatcher(k=6)])
def test_matchers_never_raise_for_predictions_of_a_diverged_model(matcher: Any) -> None:
    logits, boxes = torch.full((8, 3), math.nan), torch.full((8, 4), math.nan)
    queries, _ = matcher(logits, boxes, torch.tensor([0, 1]), torch.rand(2, 4))
    assert len(queries) == 0
    queries, _ = matcher(torch.randn(8, 3), torch.rand(8, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert len(queries) == 0


def test_weights_of_the_cost_decide_what_is_matched() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
    logits = torch.tensor([[-4.0], [4.0]])
    target = (torch.tensor([0]), boxes[:1])
    by_box = HungarianMatcher(cost=MatchingCost(class_weight=0.0))(logits, boxes, *target)
    by_class = HungarianMatcher(cost=MatchingCost(l1_weight=0.0, giou_weight=0.0))(logits, boxes, *target)
    assert (by_box[0].item(), by_class[0].item()) == (0, 1)


def test_matchers_are_found_by_name() -> None:
    assert MATCHER_REGISTRY.get("HungarianMatcher") is HungarianMatcher
    assert MATCHER_REGISTRY.get("OneToManyMatcher") is OneToManyMatcher

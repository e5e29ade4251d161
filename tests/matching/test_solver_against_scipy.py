"""The compiled solver against scipy on the repeated matrix: thousands of cases of every kind that hurts."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdetr_d2.matching import solver
from hdetr_d2.matching.solver import Assignment, solve_many

CASES_OF_A_KIND = 400


def uniform(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape)


def tied(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 4, shape).astype(float)


def all_equal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.full(shape, rng.normal())


def same_order_for_all_targets(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=(shape[0], 1)) + 1e-3 * rng.normal(size=shape)


def nearly_tied(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=(1, shape[1])) + 1e-7 * rng.integers(0, 2, shape)


def huge_and_tiny(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape) * 10.0 ** rng.integers(-12, 6, size=shape)


def with_holes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    cost = rng.integers(-3, 3, shape).astype(float)
    cost[rng.random(shape) < rng.random()] = rng.choice([np.nan, np.inf, -np.inf])
    return cost


def with_lost_queries_and_targets(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    cost = rng.normal(size=shape)
    cost[rng.random(shape[0]) < 0.3] = np.nan
    cost[:, rng.random(shape[1]) < 0.2] = np.inf
    return cost


KINDS = [
    uniform,
    tied,
    all_equal,
    same_order_for_all_targets,
    nearly_tied,
    huge_and_tiny,
    with_holes,
    with_lost_queries_and_targets,
]


def draw(kind: Any, seed: int, *, most_queries: int, most_targets: int) -> tuple[Tensor, int]:
    """A matrix of any size down to (0, 0), in either float type and either memory order, and a number of copies."""
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(most_queries + 1)), int(rng.integers(most_targets + 1))
    cost = torch.from_numpy(kind(rng, shape)).to(torch.float32 if rng.random() < 0.5 else torch.float64)
    if rng.random() < 0.5:
        cost = cost.t().contiguous().t()
    return cost, int(rng.integers(1, 9))


def value(cost: Tensor, solution: Assignment) -> float:
    return cost[solution.rows, solution.columns].double().sum().item()


def assert_equally_good(cost: Tensor, k: int, solution: Assignment, oracle: Assignment) -> None:
    assert len(solution.rows) == len(oracle.rows)
    assert (solution.rows[1:] > solution.rows[:-1]).all()
    assert (solution.columns.bincount() <= k).all()
    assert solution.unmatchable == oracle.unmatchable
    scale = cost[cost.isfinite()].abs().max().item() if cost.isfinite().any() else 0.0
    assert value(cost, solution) == pytest.approx(value(cost, oracle), rel=1e-12, abs=1e-12 * scale)


@pytest.fixture
def compiled() -> None:
    assert solver.is_compiled(), "the operators were not built: pip install --no-build-isolation -e ."


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", KINDS)
def test_costs_what_scipy_finds_on_the_repeated_matrix(kind: Any) -> None:
    problems = [draw(kind, seed, most_queries=40, most_targets=14) for seed in range(CASES_OF_A_KIND)]
    problems += [draw(kind, seed, most_queries=900, most_targets=70) for seed in range(6)]
    solutions = solve_many([cost for cost, _ in problems], [k for _, k in problems])
    for (cost, k), solution in zip(problems, solutions):
        assert_equally_good(cost, k, solution, solver._solve_by_scipy(cost, k))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(60, 60), (60, 10), (61, 10), (59, 10), (20, 60), (1, 9), (9, 1)])
def test_exact_where_copies_just_fit_or_do_not(kind: Any, shape: tuple[int, int]) -> None:
    cost = torch.from_numpy(kind(np.random.default_rng(3), shape))
    for k in (1, 6):
        (solution,) = solve_many([cost], [k])
        assert_equally_good(cost, k, solution, solver._solve_by_scipy(cost, k))


@pytest.mark.usefixtures("compiled")
def test_parallel_and_repeated_runs_give_the_same_pairs() -> None:
    problems = [draw(kind, seed, most_queries=200, most_targets=20) for kind in KINDS for seed in range(8)]
    costs, copies = [cost for cost, _ in problems], [k for _, k in problems]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [solve_many([cost], [k])[0] for cost, k in problems]
        torch.set_num_threads(4)
        together = [solve_many(costs, copies) for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    for solutions in together:
        for one, other in zip(alone, solutions, strict=True):
            assert torch.equal(one.rows, other.rows)
            assert torch.equal(one.columns, other.columns)


@pytest.mark.usefixtures("compiled")
def test_memory_order_and_float_type_do_not_change_the_pairs() -> None:
    cost = torch.randint(0, 5, (300, 20)).float()
    expected = solver.solve_one_to_many(cost, 3)
    for same in (
        cost.t().contiguous().t(),
        cost.double(),
        cost.half(),
        cost.repeat(1, 2)[:, :20],
        cost.flip(0).flip(0),
    ):
        rows, columns = solver.solve_one_to_many(same, 3)
        assert torch.equal(rows, expected[0])
        assert torch.equal(columns, expected[1])


def test_without_the_compiled_solver_scipy_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [draw(kind, 5, most_queries=40, most_targets=14) for kind in KINDS]
    costs, copies = [cost for cost, _ in problems], [k for _, k in problems]
    expected = solve_many(costs, copies)
    monkeypatch.setattr(solver, "is_compiled", bool)
    for cost, k, one, other in zip(costs, copies, expected, solve_many(costs, copies), strict=True):
        assert_equally_good(cost, k, one, other)


def test_no_problems_have_no_solutions() -> None:
    assert solve_many([], []) == []


@pytest.mark.parametrize(("shape", "k", "said"), [((3, 2), 0, "at least 1"), ((3,), 1, "queries, targets")])
def test_wrong_arguments_are_named(shape: tuple[int, ...], k: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        solve_many([torch.zeros(shape)], [k])

"""Matching by candidates, which is how costs on a GPU are matched, against matching by whole matrices."""

import math

import pytest
import torch
from torch import Tensor

from hdetr_d2.matching import HungarianMatcher, OneToManyMatcher, candidates, step
from hdetr_d2.matching.candidates import Asking, Costs, select_candidates, solve_by_candidates, solve_stacks
from hdetr_d2.matching.solver import Assignment
from hdetr_d2.structures import Predictions, Targets


@pytest.fixture
def whole_matrices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many problems each call solved again on whole matrices."""
    sizes: list[int] = []
    original = candidates.solve_many

    def counting(costs: list[Tensor], copies: list[int]) -> list[Assignment]:
        sizes.append(len(costs))
        return original(costs, copies)

    monkeypatch.setattr(candidates, "solve_many", counting)
    return sizes


def of_one_image(costs: Tensor, k: int) -> Costs:
    """Of (L, N, M) costs."""
    return Costs(costs.permute(2, 0, 1), torch.zeros(costs.shape[2], dtype=torch.int64), (costs.shape[2],), k)


def both_ways(costs: Tensor, k: int) -> tuple[list[Assignment], list[Assignment]]:
    """The solutions of each layer of (L, N, M) costs, by candidates and by whole matrices."""
    stacks = [of_one_image(costs, k)]
    ((ours,), _), ((whole,), _) = solve_by_candidates(stacks), solve_stacks(stacks)
    return ours, whole


def assert_equally_good(costs: Tensor, k: int, ours: list[Assignment], whole: list[Assignment]) -> None:
    for cost, one, other in zip(costs, ours, whole, strict=True):
        assert len(one.rows) == len(other.rows)
        assert one.unmatchable == other.unmatchable
        assert (one.rows[1:] > one.rows[:-1]).all()
        assert (one.columns.bincount() <= k).all()
        expected = cost[other.rows, other.columns].double().sum().item()
        assert cost[one.rows, one.columns].double().sum().item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("shape", [(300, 7), (300, 60), (20, 30), (1, 4), (5, 1), (0, 3), (40000, 2)])
@pytest.mark.parametrize("levels", [None, 3])
def test_candidates_give_the_optimum_of_the_whole_matrix(k: int, shape: tuple[int, int], levels: int | None) -> None:
    costs = torch.randn(2, *shape) if levels is None else torch.randint(levels, (2, *shape)).float()
    costs[:, ::7] = math.nan
    costs[1, 3::11, ::2] = math.inf
    assert_equally_good(costs, k, *both_ways(costs, k))


def test_independent_targets_are_proven_from_candidates(whole_matrices: list[int]) -> None:
    costs = torch.randn(6, 1500, 30)
    assert_equally_good(costs, 6, *both_ways(costs, 6))
    assert whole_matrices == [6]  # those that the comparison solves


def test_targets_that_want_the_same_queries_are_solved_from_the_whole_matrix(whole_matrices: list[int]) -> None:
    costs = torch.randn(3, 1500, 1) + 1e-3 * torch.randn(3, 1500, 100)
    costs[1] = torch.randn(1500, 100)
    assert_equally_good(costs, 6, *both_ways(costs, 6))
    assert whole_matrices == [2, 3]  # the last are those that the comparison solves


@pytest.fixture
def copies_to_the_host(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each copy."""
    sizes: list[int] = []
    original = candidates.to_host

    def counting(tensors: list[Tensor]) -> list[Tensor]:
        if tensors:
            sizes.append(sum(x.nbytes for x in tensors))
        return original(tensors)

    monkeypatch.setattr(candidates, "to_host", counting)
    return sizes


@pytest.mark.parametrize(("shape", "k"), [((300, 50), 6), ((400, 60), 6), ((300, 60), 6)])
def test_where_candidates_prove_nothing_pairs_that_can_improve_are_asked_for(
    shape: tuple[int, int], k: int, whole_matrices: list[int], copies_to_the_host: list[int]
) -> None:
    costs = torch.rand(4, *shape) + 0.3 * torch.rand(4, shape[0], 1) + 0.6 * torch.rand(4, 1, shape[1])
    assert_equally_good(costs, k, *both_ways(costs, k))
    assert whole_matrices == [4]  # those that the comparison solves
    assert 2 < len(copies_to_the_host) < 10


def test_candidates_that_are_added_are_counted_once_and_with_their_source() -> None:
    asking = Asking(sinks=10, k=1, by_target=True)
    listed = torch.tensor([[7, 1], [5, 6], [9, 2]], dtype=torch.int16)
    problem = candidates._Problem((0, 0, 0), asking, torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]]), listed, 0)
    assert problem.bounds.tolist() == [2, 3, 4]
    places = torch.tensor([24, 3, 28, 9], dtype=torch.int32)
    assert problem.add(torch.tensor([6.0, 5.0, math.inf, 8.0]), places)
    assert problem.costs.tolist() == [[1, 2, 5, 8], [1, 3, math.inf, math.inf], [1, 4, 6, math.inf]]
    assert problem.indices[:, 2:].tolist() == [[3, 9], [5, 5], [4, 9]]  # what is no candidate repeats the first
    assert problem.bounds.tolist() == [2, 3, 4]
    assert not problem.add(torch.tensor([math.inf]), torch.tensor([0], dtype=torch.int32))


def test_a_candidate_list_grows_with_the_targets_and_not_with_the_queries() -> None:
    sizes = []
    for queries in (1500, 15000):
        (chosen,), _ = select_candidates(of_one_image(torch.randn(1, queries, 30), 6))
        sizes.append(chosen.costs.nbytes + chosen.indices.nbytes)
    assert sizes[0] == sizes[1] < 1500 * 30 * 4 / 15


@pytest.mark.parametrize("k", [1, 4])
def test_images_that_ask_otherwise_than_one_another_are_solved_as_alone(k: int) -> None:
    counts = (3, 0, 50, 7, 20)
    pairs = torch.randn(sum(counts), 2, 30)
    pairs[5:40, :, ::7] = math.nan
    pairs[1, 1] = math.inf
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    costs = Costs(pairs, image, counts, k)
    passenger = torch.arange(3)
    (ours,), (same,) = solve_by_candidates([costs], [passenger])
    assert torch.equal(same, passenger)
    expected = [one for i, count in enumerate(counts) if count for one in both_ways(costs.of_image(i), k)[1]]
    for matrix, one, other in zip(costs.matrices(), ours, expected, strict=True):
        assert_equally_good(matrix[None], k, [one], [other])


def test_a_step_by_candidates_matches_as_a_step_by_whole_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [Targets(torch.randint(4, (n,)), 0.2 + 0.3 * torch.rand(n, 4)) for n in (5, 0, 40)]
    predictions = Predictions(torch.randn(3, 3, 90, 4), 0.2 + 0.3 * torch.rand(3, 3, 90, 4))
    predictions.boxes[1, 0, 4:6] = math.nan
    matchers = [HungarianMatcher(), OneToManyMatcher(k=2), OneToManyMatcher(k=4)]
    requests = [step.MatchRequest(predictions, matchers, targets)]
    (whole,) = step.match_step(requests)
    monkeypatch.setattr(step, "solve_stacks", solve_by_candidates)
    (ours,) = step.match_step(requests)
    assert whole.unmatchable == ours.unmatchable == 2
    assert whole.per_layer == ours.per_layer
    # Costs of random boxes are not tied, so the optimum is one.
    assert all(torch.equal(getattr(whole, name), getattr(ours, name)) for name in ("layer", "row", "target"))


def test_predictions_that_match_nothing_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectron2.utils.logger._LOG_TIMER", {})
    targets = [Targets(torch.zeros(2, dtype=torch.int64), torch.rand(2, 4))]
    predictions = Predictions(torch.full((1, 1, 5, 3), math.nan), torch.rand(1, 1, 5, 4))
    with caplog.at_level("WARNING", logger=step.__name__):
        (matches,) = step.match_step([step.MatchRequest(predictions, [HungarianMatcher()], targets)])
    assert matches.unmatchable == 5
    assert matches.per_layer == [0]

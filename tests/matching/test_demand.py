"""Demands by frequency: the budget is kept, and the matching is the optimum of the repeated columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from hdetr_d2.arguments import ArgumentError
from hdetr_d2.losses import SetCriterion
from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.matching import FrequencyDemand, OneToManyMatcher, solve_one_to_many, solve_transportation
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY, HybridBranch, HybridProposals, HybridSupervision

TAIL = [1000, 400, 300, 90, 40, 12, 5, 1]


def random_cost(seed: int, queries: int, targets: int, *, crowded: bool = False) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    cost = rng.normal(size=(queries, targets))
    if crowded:
        cost = 0.1 * cost + np.linspace(0, 3, queries)[:, None]
    return torch.from_numpy(np.round(cost * 256) / 256)


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize(("queries", "demands"), [(30, [1, 5, 2, 7]), (12, [3, 1, 6, 9]), (40, [4]), (9, [1, 1, 1])])
def test_it_costs_what_scipy_finds_on_repeated_columns(queries: int, demands: list[int], crowded: bool) -> None:
    for seed in range(5):
        cost = random_cost(seed, queries, len(demands), crowded=crowded)
        wanted = torch.tensor(demands)
        for given in (cost, cost.float(), cost.T.contiguous().T):
            rows, columns = solve_transportation(given, wanted)
            repeated = cost.repeat_interleave(wanted, 1).numpy()
            best = repeated[linear_sum_assignment(repeated)].sum()
            assert float(cost[rows, columns].sum()) == pytest.approx(best, abs=1e-5)
            assert len(rows) == min(queries, sum(demands))
            assert len(set(rows.tolist())) == len(rows)
            assert rows.tolist() == sorted(rows.tolist())
            assert (columns.bincount(minlength=len(demands)) <= wanted).all()


@pytest.mark.parametrize("k", [1, 3, 20])
def test_equal_demands_give_the_pairs_of_a_constant_k(k: int) -> None:
    for seed in range(4):
        cost = random_cost(seed, 40, 5).float()
        one, other = solve_one_to_many(cost, k), solve_transportation(cost, torch.full((5,), k))
        assert one[0].tolist() == other[0].tolist()
        assert one[1].tolist() == other[1].tolist()


def test_pairs_that_are_not_finite_are_never_matched() -> None:
    cost = random_cost(1, 8, 2)
    cost[2:] = torch.inf
    cost[0, 0] = torch.nan
    rows, columns = solve_transportation(cost, torch.tensor([3, 2]))
    assert rows.tolist() == [0, 1]
    assert torch.isfinite(cost[rows, columns]).all()


@pytest.mark.parametrize("demands", [[1], [1, 0], [1, 2, 3]])
def test_demands_that_do_not_fit_are_refused(demands: list[int]) -> None:
    with pytest.raises(ValueError, match="demands must be 2 numbers"):
        solve_transportation(torch.zeros(4, 2), torch.tensor(demands))


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("k", [2, 6])
def test_the_budget_is_kept_and_rare_classes_get_no_less(power: float, k: int) -> None:
    demands = FrequencyDemand(image_counts=TAIL, power=power).of_classes(k)
    counts = torch.tensor(TAIL, dtype=torch.float64)
    # Whole numbers: the most frequent class of 54 % of all objects moves the mean by so much.
    assert float((demands * counts).sum() / counts.sum()) == pytest.approx(k, abs=0.3)
    assert demands.tolist() == sorted(demands.tolist())
    assert (len(set(demands.tolist())) == 1) == (power == 0.0)
    assert int(demands.min()) >= 1
    assert int(demands.max()) <= 10 * k


def test_limits_hold_and_impossible_ones_are_refused() -> None:
    demands = FrequencyDemand(image_counts=TAIL, power=1.0, least=4, most=9).of_classes(5)
    assert demands.min() >= 4
    assert demands.max() <= 9
    with pytest.raises(ArgumentError, match=r"k=3 is not between least=4"):
        FrequencyDemand(image_counts=TAIL, least=4).of_classes(3)
    with pytest.raises(ArgumentError, match="image_counts"):
        FrequencyDemand(image_counts=[])


def test_a_scheme_gives_each_target_the_queries_of_its_class_whatever_its_logits_are_of() -> None:
    demand = FrequencyDemand(image_counts=TAIL, power=0.5)
    supervision = HybridBranch(num_queries=60, k=3, demand=demand, encoder="one2many")
    matcher = supervision.rule("one2many", 0, 2, 0.0).matcher
    assert isinstance(matcher, OneToManyMatcher)
    assert matcher.k_of_class is not None
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([7, 0, 4])
    targets = [Targets(labels, torch.rand(3, 4, generator=generator) * 0.4 + 0.2)]
    columns = torch.tensor([0, 4, 5, 7])  # logits of some classes alone, as the federated loss has them
    found = {
        name: Predictions(
            torch.randn(2, 1, queries, len(columns), generator=generator),
            torch.rand(2, 1, queries, 4, generator=generator) * 0.4 + 0.2,
        )
        for name, queries in ((PRIMARY, 20), ("one2many", 60))
    }
    seen: list[MatchedStep] = []
    criterion = SetCriterion()
    criterion.observer = seen.append
    criterion(found, {}, targets, supervision=supervision, columns=columns)
    (solved,) = [one for one in seen[0].solved if seen[0].suffixes[one.request][-1] == "_one2many"]
    wanted = matcher.k_of_class[labels]
    for solution in solved.solutions:
        assert solution.columns.bincount(minlength=3).tolist() == wanted.tolist()


def test_a_description_says_what_each_class_gets() -> None:
    demand = FrequencyDemand(image_counts=TAIL, power=0.5)
    description = HybridBranch(num_queries=120, k=6, demand=demand).describe(num_queries=30, num_layers=3)
    (share,) = [each for each in description.shares if each.group == "one2many"]
    assert share.by_class == tuple(demand.of_classes(6).tolist())
    assert share.positives == 6
    assert description.positives(group="one2many", layer=0) == 6
    assert "positives of a target by class, one2many: 60 (1 class)" in str(description)


@pytest.mark.parametrize(
    "scheme",
    [
        HybridProposals(k=4, demand=FrequencyDemand(image_counts=TAIL)),
        HybridBranch(encoder="one2many", encoder_k=4, demand=FrequencyDemand(image_counts=TAIL)),
    ],
    ids=lambda scheme: type(scheme).__name__,
)
def test_proposals_have_the_demands_of_a_k_of_their_own(scheme: HybridSupervision) -> None:
    matcher = scheme.encoder_rule(0.0).matcher
    assert isinstance(matcher, OneToManyMatcher)
    assert matcher.k_of_class is not None
    assert matcher.k_of_class.tolist() == FrequencyDemand(image_counts=TAIL).of_classes(4).tolist()

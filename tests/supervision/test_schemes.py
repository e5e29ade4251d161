"""Which rule each scheme gives to which group, layer and progress."""

from typing import Any

import pytest

from hdetr_d2.matching import HungarianMatcher, MatchingCost, OneToManyMatcher
from hdetr_d2.registry import SUPERVISION_REGISTRY
from hdetr_d2.supervision import (
    PRIMARY,
    HybridBranch,
    HybridEpoch,
    HybridLayer,
    HybridProposals,
    OneToOne,
    Rule,
    Supervision,
)

PROGRESS = [0.0, 0.3, 0.66, 0.67, 0.999]


def described(rule: Rule) -> tuple[str, float, float]:
    """("one" or the number of copies, weight, normaliser)."""
    if isinstance(rule.matcher, OneToManyMatcher):
        return str(rule.matcher.k), rule.weight, rule.normaliser
    assert isinstance(rule.matcher, HungarianMatcher)
    return "one", rule.weight, rule.normaliser


ONE_TO_ONE = ("one", 1.0, 1.0)


def rules(scheme: Supervision, group: str, progress: float, layers: int = 6) -> list[tuple[str, float, float]]:
    return [described(scheme.rule(group, layer, layers, progress)) for layer in range(layers)]


@pytest.mark.parametrize("progress", PROGRESS)
def test_one_to_one_is_hungarian_everywhere(progress: float) -> None:
    assert rules(OneToOne(), PRIMARY, progress) == [ONE_TO_ONE] * 6
    assert OneToOne().extra_groups() == ()


@pytest.mark.parametrize("progress", PROGRESS)
def test_hybrid_branch_gives_the_second_group_k_copies_in_every_layer(progress: float) -> None:
    scheme = HybridBranch(num_queries=900, k=5, weight=0.5)
    (group,) = scheme.extra_groups()
    assert (group.name, group.num_queries) == ("one2many", 900)
    assert rules(scheme, PRIMARY, progress) == [ONE_TO_ONE] * 6
    assert rules(scheme, group.name, progress) == [("5", 0.5, 5.0)] * 6


def test_hybrid_branch_defaults_are_the_papers() -> None:
    scheme = HybridBranch()
    assert scheme.extra_groups()[0].num_queries == 1500
    assert rules(scheme, "one2many", 0.0) == [("6", 1.0, 6.0)] * 6


def test_hybrid_epoch_is_one_to_many_for_two_thirds_of_training() -> None:
    scheme = HybridEpoch()
    assert scheme.extra_groups() == ()
    for epoch in range(12):
        expected = ("10", 1.0, 10.0) if epoch < 8 else ONE_TO_ONE
        assert rules(scheme, PRIMARY, epoch / 12) == [expected] * 6


@pytest.mark.parametrize(("rho", "progress", "many"), [(0.0, 0.0, False), (1.0, 0.9999, True), (0.5, 0.5, False)])
def test_hybrid_epoch_switches_at_rho(rho: float, progress: float, many: bool) -> None:
    rule = HybridEpoch(k=4, rho=rho).rule(PRIMARY, 0, 6, progress)
    assert isinstance(rule.matcher, OneToManyMatcher) == many


@pytest.mark.parametrize("progress", PROGRESS)
def test_hybrid_layer_is_one_to_many_in_the_first_layers(progress: float) -> None:
    assert rules(HybridLayer(), PRIMARY, progress) == [("10", 1.0, 10.0)] * 4 + [ONE_TO_ONE] * 2
    assert rules(HybridLayer(k=3, num_one2many_layers=1), PRIMARY, progress, layers=2) == [("3", 1.0, 3.0), ONE_TO_ONE]
    assert rules(HybridLayer(num_one2many_layers=0), PRIMARY, progress) == [ONE_TO_ONE] * 6
    assert HybridLayer().extra_groups() == ()


@pytest.mark.parametrize("scheme", [OneToOne(), HybridBranch(), HybridEpoch(), HybridLayer()])
@pytest.mark.parametrize("progress", PROGRESS)
def test_proposals_are_matched_one_to_one_in_every_scheme(scheme: Supervision, progress: float) -> None:
    assert described(scheme.encoder_rule(progress)) == ONE_TO_ONE


@pytest.mark.parametrize("progress", PROGRESS)
def test_hybrid_proposals_is_one_to_many_in_the_encoder_alone(progress: float) -> None:
    scheme = HybridProposals(k=4, weight=0.5)
    assert scheme.extra_groups() == ()
    assert rules(scheme, PRIMARY, progress) == [ONE_TO_ONE] * 6
    assert described(scheme.encoder_rule(progress)) == ("4", 0.5, 4.0)
    assert described(HybridProposals(normaliser=2.0).encoder_rule(progress)) == ("6", 1.0, 2.0)


@pytest.mark.parametrize("scheme", [HybridBranch, HybridEpoch, HybridLayer])
def test_the_encoder_may_have_a_k_of_its_own(scheme: Any) -> None:
    assert described(scheme(k=5, encoder="one2many").encoder_rule(0.0)) == ("5", 1.0, 5.0)
    built = scheme(k=5, normaliser=2.0, encoder="one2many", encoder_k=3)
    assert described(built.encoder_rule(0.0)) == ("3", 1.0, 3.0)
    assert described(built.one_to_many) == ("5", 1.0, 2.0)
    with pytest.raises(ValueError, match='encoder_k=3 needs encoder="one2many"'):
        scheme(encoder_k=3)
    with pytest.raises(ValueError, match="encoder_k must be at least 1, got 0"):
        scheme(encoder="one2many", encoder_k=0)


@pytest.mark.parametrize(
    ("scheme", "group", "progress"),
    [
        (HybridProposals, PRIMARY, 0.0),
        (OneToOne, PRIMARY, 0.0),
        (HybridBranch, "one2many", 0.0),
        (HybridEpoch, PRIMARY, 0.0),
        (HybridLayer, PRIMARY, 0.0),
    ],
)
def test_the_cost_that_a_scheme_is_given_reaches_its_matchers(scheme: Any, group: str, progress: float) -> None:
    cost = MatchingCost(class_weight=7.0)
    built = scheme(cost=cost)
    assert built.rule(group, 0, 6, progress).matcher.cost == cost
    assert built.encoder_rule(progress).matcher.cost == cost


def test_a_layer_scheme_that_leaves_no_one_to_one_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="num_one2many_layers=4 leaves none of the 4"):
        HybridLayer(num_one2many_layers=4).rule(PRIMARY, 0, 4, 0.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HybridBranch(num_queries=0), "num_queries must be at least 1, got 0"),
        (lambda: HybridBranch(k=0), "k must be at least 1, got 0"),
        (lambda: HybridEpoch(rho=1.5), "rho.*1.5"),
        (lambda: HybridEpoch(rho=-0.1), "rho.*-0.1"),
        (lambda: HybridEpoch(k=0), "k must be at least 1, got 0"),
        (lambda: HybridLayer(num_one2many_layers=-1), "-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_schemes_are_found_by_name() -> None:
    for scheme in (OneToOne, HybridBranch, HybridEpoch, HybridLayer, HybridProposals):
        assert SUPERVISION_REGISTRY.get(scheme.__name__) is scheme

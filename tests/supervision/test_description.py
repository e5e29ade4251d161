"""What schemes say of themselves, and what is refused before a model is trained."""

from itertools import pairwise, product
from typing import Any

import pytest
import torch

from hdetr_d2.errors import UserError
from hdetr_d2.matching import OneToManyMatcher
from hdetr_d2.supervision import (
    ENCODER,
    PRIMARY,
    AuxiliaryOneToMany,
    GroupSpec,
    GroupwiseOneToOne,
    HybridBranch,
    HybridEpoch,
    HybridLayer,
    HybridProposals,
    OneToOne,
    Rule,
    Supervision,
)

PAPER = [(HybridBranch(), 300), (HybridEpoch(), 1800), (HybridLayer(), 1800)]


class TwoGroups(Supervision):
    """The primary group matched one-to-one, and another one of which a test decides what it is."""

    def __init__(self, spec: GroupSpec, k: int) -> None:
        super().__init__()
        self.spec = spec
        self.other = Rule(matcher=OneToManyMatcher(k=k))

    def extra_groups(self) -> tuple[GroupSpec, ...]:
        return (self.spec,)

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        return self.one_to_one if group == PRIMARY else self.other


@pytest.mark.parametrize(("scheme", "num_queries"), PAPER, ids=lambda value: type(value).__name__)
def test_the_paper_s_schemes_give_six_extra_times_the_positives(scheme: Supervision, num_queries: int) -> None:
    # H-DETR, section 4.3: (1 + 6) x 12 x 6 = 10 x 8 x 6 + 4 x 6 = (10 x 4 + 2) x 12 of 12 epochs and 6 layers
    description = scheme.describe(num_queries=num_queries, num_layers=6)
    positives = description.positives()
    assert positives is not None
    assert 12 * positives == pytest.approx(504)
    assert description.budget == pytest.approx(7)


@pytest.mark.parametrize(("scheme", "num_queries"), [(OneToOne(), 300), *PAPER], ids=lambda v: type(v).__name__)
def test_the_encoder_is_matched_one_to_one_unless_asked(scheme: Supervision, num_queries: int) -> None:
    assert scheme.describe(num_queries=num_queries, num_layers=6).positives(group=ENCODER) == pytest.approx(1)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (HybridBranch(encoder="one2many"), 6.0),
        (HybridEpoch(encoder="one2many"), 7.0),
        (HybridLayer(encoder="one2many"), 10.0),
        (HybridBranch(encoder="one2many", encoder_k=4), 4.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_encoder_is_matched_one_to_many_where_asked(scheme: Supervision, expected: float) -> None:
    description = scheme.describe(num_queries=1800, num_layers=6)
    assert description.positives(group=ENCODER) == pytest.approx(expected)
    assert description.budget == pytest.approx(7)  # of the decoder alone


def test_a_scheme_of_the_encoder_alone_says_so() -> None:
    description = HybridProposals(k=5).describe(num_queries=300, num_layers=6)
    assert description.positives(group=ENCODER) == 5
    assert description.budget == 1
    assert "positives 1 times one-to-one matching, of the encoder 5 times" in str(description)
    assert "encoder" not in str(OneToOne().describe(num_queries=300, num_layers=6)).splitlines()[0]


def test_positives_by_layer_and_group_are_averaged_over_training() -> None:
    epoch = HybridEpoch(k=4, rho=0.25).describe(num_queries=100, num_layers=3)
    assert epoch.positives(layer=2) == pytest.approx(0.25 * 4 + 0.75)
    layer = HybridLayer(k=4, num_one2many_layers=1).describe(num_queries=100, num_layers=3)
    assert [layer.positives(layer=i) for i in range(3)] == [4, 1, 1]
    branch = HybridBranch(k=4).describe(num_queries=100, num_layers=3)
    assert branch.positives(group="one2many", layer=0) == 4
    assert branch.positives(group=PRIMARY) == 3


def test_a_target_gets_no_more_queries_than_there_are() -> None:
    description = HybridBranch(num_queries=90, k=6).describe(num_queries=20, num_layers=1, num_targets=30)
    assert description.positives(group="one2many") == 3  # 90 queries for 30 targets
    assert description.positives(group=PRIMARY) == pytest.approx(20 / 30)


def test_the_table_names_weights_and_divisors() -> None:
    text = str(HybridBranch(k=5, weight=0.5, normaliser=2.0).describe(num_queries=300, num_layers=6, num_targets=10))
    assert text.startswith("HybridBranch, 6 decoder layers, 10 targets an image: positives 6 times")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert ["0-100 %", "one2many", "1500", "1-6", "5", "50", "0.5", "2 x targets"] in lines
    assert ["0-100 %", "one2one", "300", "1-6", "1", "10", "1", "1 x targets"] in lines


@pytest.mark.parametrize("scheme", [HybridBranch, HybridEpoch, HybridLayer])
def test_the_divisor_is_the_copies_unless_given(scheme: Any) -> None:
    assert scheme(k=5).one_to_many.normaliser == 5
    assert scheme(k=5, normaliser=1.0).one_to_many.normaliser == 1.0
    with pytest.raises(ValueError, match="normaliser must be positive, got 0"):
        scheme(normaliser=0)
    with pytest.raises(ValueError, match="encoder must be one of one2one, one2many, got 'both'"):
        scheme(encoder="both")


def test_both_kinds_of_matching_on_the_same_queries_and_route_are_refused_with_the_reason() -> None:
    scheme = TwoGroups(GroupSpec(name="again", num_queries=300, queries="same"), k=6)
    with pytest.raises(ValueError, match=r"'again' is the queries of 'one2one'.*costs 6 AP.*HybridBranch"):
        scheme.check(num_layers=6)


def test_the_same_queries_again_without_another_lesson_are_refused_too() -> None:
    with pytest.raises(ValueError, match="only repeat its predictions"):
        TwoGroups(GroupSpec(name="again", num_queries=300, queries="same"), k=1).check(num_layers=6)


@pytest.mark.parametrize(
    "spec", [GroupSpec(name="x", num_queries=9), GroupSpec(name="x", num_queries=9, queries="same", route="ffn")]
)
def test_other_queries_or_another_route_may_learn_one_to_many(spec: GroupSpec) -> None:
    TwoGroups(spec, k=6).check(num_layers=6)


def test_two_groups_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        TwoGroups(GroupSpec(name=PRIMARY, num_queries=9), k=6).check(num_layers=6)


def test_what_a_rule_refuses_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="num_one2many_layers=4 leaves none of the 4"):
        HybridLayer(num_one2many_layers=4).check(num_layers=4)


@pytest.mark.parametrize(("scheme", "num_queries"), [(OneToOne(), 300), *PAPER], ids=lambda v: type(v).__name__)
def test_the_paper_s_schemes_pass_the_check(scheme: Supervision, num_queries: int) -> None:
    scheme.check(num_layers=6)


def a_step_by_hand(scheme: Supervision, group: str, queries: int, targets: int, layer: int, progress: float) -> float:
    """Queries that a target of an image gets from the matcher itself, on average."""
    boxes = torch.cat([0.3 + 0.4 * torch.rand(targets, 2), 0.1 + 0.2 * torch.rand(targets, 2)], dim=1)
    predicted = torch.cat([0.3 + 0.4 * torch.rand(queries, 2), 0.1 + 0.2 * torch.rand(queries, 2)], dim=1)
    matcher = scheme.rule(group, layer, 3, progress).matcher
    rows, _ = matcher(torch.randn(queries, 4), predicted, torch.arange(targets) % 4, boxes)
    return len(rows) / targets


@pytest.mark.parametrize("num_targets", [1, 4, 13])
@pytest.mark.parametrize(
    "scheme",
    [
        OneToOne(),
        HybridBranch(num_queries=12, k=5),
        HybridEpoch(k=5, rho=0.25),
        HybridLayer(k=5, num_one2many_layers=2),
        HybridProposals(k=5),
        GroupwiseOneToOne(num_groups=3, num_queries=9),
        AuxiliaryOneToMany(matcher=OneToManyMatcher(k=4), routes={"other": "same"}, num_queries=9),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_description_is_what_the_matchers_do(scheme: Supervision, num_targets: int) -> None:
    description = scheme.describe(num_queries=9, num_layers=3, num_targets=num_targets)
    sizes = {PRIMARY: 9} | {spec.name: spec.num_queries for spec in scheme.extra_groups()}
    edges = sorted({0.0, *scheme.changes_at, 1.0})
    for group, queries in sizes.items():
        for layer in range(3):
            done = sum(
                (stop - start) * a_step_by_hand(scheme, group, queries, num_targets, layer, start)
                for start, stop in pairwise(edges)
            )
            assert description.positives(group=group, layer=layer) == pytest.approx(done)
    for start, stop in pairwise(edges):
        for share in description.shares:
            if share.layers and (share.start, share.stop) == (start, stop):
                assert all(scheme.rule(share.group, layer, 3, start) == share.rule for layer in share.layers)
    assert {(share.group, layer) for share in description.shares for layer in share.layers} == set(
        product(sizes, range(3))
    )


def test_the_taps_of_layers_are_described_where_they_are_named() -> None:
    scheme = AuxiliaryOneToMany(matcher=OneToManyMatcher(k=4), primary_class_factor=0.5)
    assert scheme.describe(num_queries=90, num_layers=2).budget == 1
    tapped = scheme.describe(num_queries=90, num_layers=2, taps=["one2many"])
    assert tapped.budget == 5
    assert tapped.positives(group="one2many") == 8
    assert "1 (class 0.5)" in str(tapped)


def test_unions_of_matches_are_told_by_group_and_matcher() -> None:
    scheme = HybridLayer(k=3, num_one2many_layers=2)
    told = str(scheme.describe(num_queries=300, num_layers=6, united=True))
    assert "matches of layers 1-2, and are divided by its size" in told
    assert "matches of layers 3-6, and of the proposals, and are divided by its size" in told
    assert "union" not in str(scheme.describe(num_queries=300, num_layers=6))
    branch = HybridBranch(num_queries=30, k=3).describe(num_queries=30, num_layers=2, united=True)
    assert [line.split(":")[0].split(", ")[1] for line in branch.unions] == [PRIMARY, "one2many"]


@pytest.mark.parametrize("argument", ["num_queries", "num_layers", "num_targets"])
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_nothing_is_described_of_no_queries_layers_or_targets(argument: str, value: float) -> None:
    with pytest.raises(UserError, match=f"OneToOne: {argument} must be"):
        OneToOne().describe(**{"num_queries": 3, "num_layers": 3, argument: value})


@pytest.mark.parametrize(
    ("scheme", "group"),
    [
        (HybridEpoch(k=10), PRIMARY),
        (HybridLayer(k=10, num_one2many_layers=1), PRIMARY),
        (TwoGroups(GroupSpec(name="more", num_queries=9), k=10), "more"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_more_queries_of_a_target_than_there_are_are_refused(scheme: Supervision, group: str) -> None:
    if group == PRIMARY:
        scheme.check_queries(num_queries=10, num_layers=3)
    with pytest.raises(UserError, match=f"k=10 .* num_queries=9 of group '{group}'"):
        scheme.check_queries(num_queries=9, num_layers=3)

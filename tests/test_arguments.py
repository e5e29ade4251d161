"""Arguments that make no sense are refused where they are given, in one line that names them."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from hdetr_d2.arguments import ArgumentError, Score, check_choice, check_positive, check_whole, check_within
from hdetr_d2.errors import UserError
from hdetr_d2.losses import (
    EqualizedFocalLoss,
    FederatedLoss,
    IoUAwareBCE,
    MatchabilityAwareLoss,
    PositiveCounter,
    SeesawLoss,
    SetCriterion,
    SigmoidFocalLoss,
    SoftmaxCrossEntropy,
    VarifocalLoss,
)
from hdetr_d2.matching import HungarianMatcher, LexicographicMatcher, MatchingCost, OneToManyMatcher, TopKMatcher
from hdetr_d2.modeling import DenoisingQueries
from hdetr_d2.supervision import (
    AuxiliaryOneToMany,
    GroupSpec,
    GroupwiseOneToOne,
    HybridBranch,
    HybridEpoch,
    HybridLayer,
    Rule,
)

NAN, INF = float("nan"), float("inf")
WHOLE = (0, -1, 2.5, NAN, True, "6", None)
POSITIVE = (0, -0.5, NAN, INF, "1", True)
AT_LEAST_0 = (-1, -1e-9, NAN, INF, "1", None)
PART = (-0.1, 1.1, NAN, INF, "half", None)
ANY_CHOICE = ("", "SIGMOID", "both", None, 1)


def rule(**options: Any) -> Rule:
    return Rule(HungarianMatcher(), **options)


def group(**options: Any) -> GroupSpec:
    return GroupSpec(**{"name": "more", "num_queries": 3, **options})


def auxiliary(**options: Any) -> AuxiliaryOneToMany:
    return AuxiliaryOneToMany(matcher=TopKMatcher(), **options)


def equalized(**options: Any) -> EqualizedFocalLoss:
    return EqualizedFocalLoss(**{"num_classes": 3, **options})


def seesaw(**options: Any) -> SeesawLoss:
    return SeesawLoss(**{"num_classes": 3, **options})


def federated(**options: Any) -> FederatedLoss:
    return FederatedLoss(image_counts=[1, 2, 3], **options)


def denoising(**options: Any) -> DenoisingQueries:
    return DenoisingQueries(**{"num_classes": 3, "embed_dim": 8, **options})


REFUSED: list[tuple[Callable[..., object], str, tuple[object, ...]]] = [
    *((scheme, "k", WHOLE) for scheme in (HybridBranch, HybridEpoch, HybridLayer, OneToManyMatcher, TopKMatcher)),
    *((scheme, "normaliser", POSITIVE) for scheme in (HybridBranch, HybridEpoch, HybridLayer, auxiliary, rule)),
    *((scheme, "encoder", ANY_CHOICE) for scheme in (HybridBranch, HybridEpoch, HybridLayer)),
    *((scheme, "num_queries", WHOLE) for scheme in (HybridBranch, GroupwiseOneToOne, auxiliary, group)),
    *((scheme, "weight", AT_LEAST_0) for scheme in (HybridBranch, auxiliary, rule)),
    (HybridEpoch, "rho", PART),
    (HybridLayer, "num_one2many_layers", (-1, 2.5, NAN, "4", None)),
    (GroupwiseOneToOne, "num_groups", (*WHOLE, 1)),
    (GroupwiseOneToOne, "queries", (*ANY_CHOICE, "same")),
    (auxiliary, "primary_class_factor", AT_LEAST_0),
    (rule, "class_factor", AT_LEAST_0),
    (group, "queries", ANY_CHOICE),
    *((MatchingCost, name, AT_LEAST_0) for name in ("class_weight", "l1_weight", "giou_weight", "gamma")),
    (MatchingCost, "alpha", PART),
    (MatchingCost, "score", ANY_CHOICE),
    (LexicographicMatcher, "order", ANY_CHOICE),
    (LexicographicMatcher, "largest", POSITIVE),
    (TopKMatcher, "iou_weight", PART),
    (TopKMatcher, "threshold", AT_LEAST_0),
    (TopKMatcher, "max_positives", WHOLE[:-1]),
    *((SetCriterion, name, AT_LEAST_0) for name in ("class_weight", "l1_weight", "giou_weight", "encoder_weight")),
    (SetCriterion, "encoder_class_weight", AT_LEAST_0[:-1]),
    *((loss, "gamma", AT_LEAST_0) for loss in (SigmoidFocalLoss, VarifocalLoss, MatchabilityAwareLoss, IoUAwareBCE)),
    *((loss, "alpha", PART) for loss in (SigmoidFocalLoss, IoUAwareBCE, equalized, seesaw)),
    (VarifocalLoss, "alpha", AT_LEAST_0),
    (MatchabilityAwareLoss, "alpha", AT_LEAST_0[:-1]),
    (IoUAwareBCE, "decay", POSITIVE),
    (IoUAwareBCE, "decay_boxes", ANY_CHOICE),
    (IoUAwareBCE, "floor", PART),
    (SoftmaxCrossEntropy, "no_object_weight", POSITIVE),
    *((loss, "num_classes", WHOLE) for loss in (equalized, seesaw, PositiveCounter)),
    (denoising, "num_classes", WHOLE[:-1]),
    (equalized, "scale", AT_LEAST_0),
    (equalized, "gamma", (0.0, *AT_LEAST_0)),
    *((seesaw, name, AT_LEAST_0) for name in ("p", "q", "gamma")),
    (seesaw, "min_score", POSITIVE),
    (federated, "num_chosen", WHOLE),
    (federated, "power", AT_LEAST_0),
    (denoising, "budget", WHOLE[:-1]),
    (denoising, "label_noise", PART),
    (denoising, "box_noise", AT_LEAST_0),
    (denoising, "padding_box", PART),
]


def described(value: object) -> str:
    """A name that is the same in every process."""
    return str(getattr(value, "__name__", repr(value)))


BUILDERS = sorted({(build, name) for build, name, _ in REFUSED}, key=lambda pair: (described(pair[0]), pair[1]))


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [(build, name, value) for build, name, values in REFUSED for value in values],
    ids=described,
)
def test_an_argument_that_makes_no_sense_is_refused_by_name(
    build: Callable[..., object], name: str, value: object
) -> None:
    with pytest.raises(ArgumentError, match=rf"\b{name} must be ") as caught:
        build(**{name: value})
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, (UserError, ValueError))


@pytest.mark.parametrize(("build", "name"), BUILDERS, ids=described)
def test_what_is_refused_was_an_argument(build: Callable[..., object], name: str) -> None:
    # A typo above would be a TypeError there, not an ArgumentError; this is about values that are right.
    right = {"encoder": "one2many", "queries": "own", "score": "softmax", "order": "fixed", "decay_boxes": "all"}
    whole = {"num_queries": 40, "num_groups": 2, "k": 2, "num_one2many_layers": 0}
    build(**{name: right.get(name, whole.get(name, 1))})


def test_k_may_not_be_more_than_the_queries_of_the_branch() -> None:
    HybridBranch(num_queries=6, k=6)
    with pytest.raises(ArgumentError, match=r"k=7 .* num_queries=6"):
        HybridBranch(num_queries=6, k=7)


def test_the_messages_say_whose_argument_it_is_and_what_it_may_be() -> None:
    said = {
        "Box: score must be one of sigmoid, softmax, got 'tanh'": lambda: check_choice("Box", Score, score="tanh"),
        "Box: k must be at least 1, got 0": lambda: check_whole("Box", 1, k=0),
        "Box: k must be at least 1, got 0; drop it": lambda: check_whole("Box", 1, "drop it", k=0),
        "Box: k must be a whole number of at least 1, got '0'": lambda: check_whole("Box", 1, k="0"),
        "Box: rho must be a number in [0, 1], got nan": lambda: check_within("Box", 0, 1, rho=math.nan),
        "Box: gamma must be a number at least 0, got -1": lambda: check_within("Box", 0, math.inf, gamma=-1),
        "Box: unit must be positive, got 0": lambda: check_positive("Box", unit=0),
    }
    for message, call in said.items():
        with pytest.raises(ArgumentError) as caught:
            call()
        assert str(caught.value) == message

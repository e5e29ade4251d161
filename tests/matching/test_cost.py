"""Matching costs against one pair at a time in plain Python."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hdetr_d2.matching import MatchingCost
from hdetr_d2.matching.cost import focal_class_cost


def giou(a: list[float], b: list[float]) -> float:
    """Generalized IoU of two cxcywh boxes."""
    (ax0, ax1), (ay0, ay1) = ((a[i] - a[i + 2] / 2, a[i] + a[i + 2] / 2) for i in (0, 1))
    (bx0, bx1), (by0, by1) = ((b[i] - b[i + 2] / 2, b[i] + b[i + 2] / 2) for i in (0, 1))
    overlap = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    union = a[2] * a[3] + b[2] * b[3] - overlap
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return overlap / union - (hull - union) / hull


def draw(queries: int, targets: int, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def boxes(n: int) -> Tensor:
        return torch.cat([0.2 + 0.6 * torch.rand(n, 2), 0.05 + 0.3 * torch.rand(n, 2)], dim=1).double()

    logits = 3 * torch.randn(queries, classes, dtype=torch.float64)
    return logits, boxes(queries), torch.randint(classes, (targets,)), boxes(targets)


def pair_cost(cost: MatchingCost, logits: list[float], box: list[float], label: int, target: list[float]) -> float:
    if cost.score == "sigmoid":
        p = 1 / (1 + math.exp(-logits[label]))
        positive = -cost.alpha * (1 - p) ** cost.gamma * math.log(p + 1e-8)
        negative = -(1 - cost.alpha) * p**cost.gamma * math.log(1 - p + 1e-8)
        of_class = positive - negative
    else:
        of_class = -math.exp(logits[label]) / sum(math.exp(x) for x in logits)
    l1 = sum(abs(x - y) for x, y in zip(box, target))
    return cost.class_weight * of_class + cost.l1_weight * l1 - cost.giou_weight * giou(box, target)


@pytest.mark.parametrize(
    "cost",
    [
        MatchingCost(),
        MatchingCost(score="softmax", class_weight=1.0),
        MatchingCost(class_weight=0.5, l1_weight=3.0, giou_weight=4.0, alpha=0.4, gamma=1.5),
    ],
)
def test_cost_of_every_pair_is_the_weighted_sum_of_its_three_terms(cost: MatchingCost) -> None:
    logits, boxes, labels, targets = draw(6, 3)
    matrix = cost(logits, boxes, labels, targets)
    assert matrix.shape == (6, 3)
    for i in range(6):
        for j in range(3):
            expected = pair_cost(cost, logits[i].tolist(), boxes[i].tolist(), int(labels[j]), targets[j].tolist())
            assert matrix[i, j].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.1, 0.465483), (0.5, -0.086643), (0.9, -1.398557), (0.01, 1.128381), (0.3, 0.123411)]
)
def test_focal_class_cost_has_the_published_values(p: float, expected: float) -> None:
    assert focal_class_cost(torch.tensor(math.log(p / (1 - p)))).item() == pytest.approx(expected, abs=5e-6)


def test_layers_are_costed_at_once_as_one_by_one() -> None:
    _, _, labels, targets = draw(1, 3)
    logits, boxes = torch.randn(4, 6, 4), torch.rand(4, 6, 4)
    stacked = MatchingCost()(logits, boxes, labels, targets)
    for layer in range(4):
        torch.testing.assert_close(stacked[layer], MatchingCost()(logits[layer], boxes[layer], labels, targets))


def test_cost_is_float32_without_gradient_for_half_precision_under_autocast() -> None:
    logits, boxes, labels, targets = draw(6, 3)
    logits, boxes, targets = logits.bfloat16().requires_grad_(), boxes.bfloat16(), targets.float()
    expected = MatchingCost()(logits.float(), boxes.float(), labels, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = MatchingCost()(logits, boxes, labels, targets)
    assert cost.dtype == torch.float32
    assert not cost.requires_grad
    assert torch.equal(cost, expected)


@pytest.mark.parametrize("extreme", [200.0, -200.0])
def test_saturated_logits_have_a_finite_cost(extreme: float) -> None:
    logits, boxes, labels, targets = draw(6, 3)
    assert MatchingCost()(torch.full_like(logits, extreme).float(), boxes, labels, targets).isfinite().all()


def test_a_nan_prediction_spoils_its_own_row_only() -> None:
    logits, boxes, labels, targets = draw(6, 3)
    clean = MatchingCost()(logits, boxes, labels, targets)
    logits[2], boxes[4, 1] = math.nan, math.nan
    dirty = MatchingCost()(logits, boxes, labels, targets)
    assert dirty[[2, 4]].isnan().all()
    assert torch.equal(dirty[[0, 1, 3, 5]], clean[[0, 1, 3, 5]])


def test_no_targets_give_a_matrix_without_columns() -> None:
    logits, boxes, _, _ = draw(6, 3)
    assert MatchingCost()(logits, boxes, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)).shape == (6, 0)


def test_an_unknown_kind_of_score_is_refused() -> None:
    with pytest.raises(ValueError, match="tanh"):
        replace(MatchingCost(), score="tanh")

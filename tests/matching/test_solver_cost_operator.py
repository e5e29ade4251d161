"""The compiled cost of all pairs against the same in plain PyTorch."""

import math

import pytest
import torch
from torch import Tensor

from hdetr_d2.matching import MatchingCost
from hdetr_d2.matching.compiled import is_compiled


def draw(*shape: int, num_targets: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    boxes, targets = torch.rand(*shape, 4), torch.rand(num_targets, 4)
    boxes[..., ::5, 2:] = 0.0  # points
    boxes[..., 1::7, 2] *= -1.0  # and boxes inside out
    targets[::4, 3] = 0.0
    return torch.randn(*shape, 9), boxes, torch.randint(9, (num_targets,)), targets


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
@pytest.mark.parametrize("shape", [(40,), (3, 41), (2, 3, 7), (0, 5), (3, 0)])
@pytest.mark.parametrize("num_targets", [0, 1, 23])
def test_one_pass_costs_what_plain_tensors_do(score: str, shape: tuple[int, ...], num_targets: int) -> None:
    assert is_compiled(), "the operators were not built: pip install --no-build-isolation -e ."
    logits, boxes, labels, targets = draw(*shape, num_targets=num_targets)
    cost = MatchingCost(score=score)
    compiled = cost(logits, boxes, labels, targets)
    plain = cost(logits.double(), boxes.double(), labels, targets.double())  # float64 is never compiled
    assert compiled.dtype == torch.float32
    assert compiled.shape == (*shape, num_targets)
    torch.testing.assert_close(compiled.double(), plain, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("coordinate", range(4))
def test_a_coordinate_that_is_not_finite_makes_the_cost_so(bad: float, coordinate: int) -> None:
    logits, boxes, labels, targets = draw(30, num_targets=6)
    boxes[11, coordinate] = bad
    finite = MatchingCost()(logits, boxes, labels, targets).isfinite()
    assert not finite[11].any()
    assert finite.sum() == 29 * 6


def test_wrong_arguments_raise_instead_of_reading_elsewhere() -> None:
    cost, boxes, targets = torch.zeros(1, 2, 5), torch.zeros(1, 5, 4), torch.zeros(3, 4)
    classes = torch.tensor([0, 1, 2])
    with pytest.raises(RuntimeError, match=r"class_of must be in \[0, 2\)"):
        torch.ops.hdetr_d2.pair_costs(cost, classes, boxes, targets, 5.0, 2.0)
    with pytest.raises(RuntimeError, match=r"boxes must be \(layers, queries, 4\)"):
        torch.ops.hdetr_d2.pair_costs(cost, classes, boxes[:, :4], targets, 5.0, 2.0)
    with pytest.raises(RuntimeError, match="class_cost must be Float"):
        torch.ops.hdetr_d2.pair_costs(cost.double(), classes, boxes, targets, 5.0, 2.0)
    index = torch.full((1, 2), 9, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"indices must be in \[0, 5\)"):
        torch.ops.hdetr_d2.solve_candidates([torch.zeros(1, 2)], [index], [torch.zeros(1)], [5], [1], [1])
    with pytest.raises(RuntimeError, match=r"bounds\[0\] must be one for each of 1 sources"):
        torch.ops.hdetr_d2.solve_candidates([torch.zeros(1, 2)], [index], [torch.zeros(2)], [5], [1], [1])

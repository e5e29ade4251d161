"""Box arithmetic against torchvision, and at the edges that torchvision does not have."""

import math
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy, generalized_box_iou, inverse_sigmoid, xyxy_to_cxcywh


def random_boxes(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    low = torch.rand(n, 2, dtype=dtype)
    return torch.cat([low, low + torch.rand(n, 2, dtype=dtype) + 1e-3], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlaps_of_all_pairs_are_those_of_torchvision(dtype: torch.dtype) -> None:
    a, b = random_boxes(40, dtype), random_boxes(30, dtype)
    torch.testing.assert_close(box_iou(a[:, None], b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(generalized_box_iou(a[:, None], b), torchvision.ops.generalized_box_iou(a, b))


def test_overlaps_of_boxes_side_by_side_are_the_diagonal_of_all_pairs() -> None:
    a, b = random_boxes(20), random_boxes(20)
    torch.testing.assert_close(generalized_box_iou(a, b), torchvision.ops.generalized_box_iou(a, b).diagonal())
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b).diagonal())


def test_gradient_of_the_generalized_iou_is_that_of_torchvisions_loss() -> None:
    a, b = random_boxes(20, torch.float64), random_boxes(20, torch.float64)
    ours, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    (1 - generalized_box_iou(ours, b)).sum().backward()
    torchvision.ops.generalized_box_iou_loss(theirs, b, reduction="sum").backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)  # theirs adds 1e-7 to the denominators


@pytest.mark.parametrize("overlap", [box_iou, generalized_box_iou])
def test_half_precision_boxes_are_measured_in_single_precision(overlap: Any) -> None:
    a, b = random_boxes(9).half(), random_boxes(9).half()
    assert overlap(a, b).dtype == torch.float32
    torch.testing.assert_close(overlap(a, b), overlap(a.float(), b.float()))


def test_two_equal_points_have_no_overlap_and_a_zero_gradient() -> None:
    point = torch.tensor([[0.3, 0.4, 0.3, 0.4]], requires_grad=True)
    for overlap in (box_iou, generalized_box_iou):
        value = overlap(point, point.detach())
        assert value.item() == 0.0
        (gradient,) = torch.autograd.grad(value.sum(), point)
        assert torch.equal(gradient, torch.zeros(1, 4))


def test_a_box_with_negative_size_counts_as_empty() -> None:
    turned, box = torch.tensor([0.6, 0.6, 0.2, 0.2]), torch.tensor([0.1, 0.1, 0.9, 0.9])
    assert box_iou(turned, box).item() == 0.0
    assert -1.0 <= generalized_box_iou(turned, box).item() <= 0.0


def test_a_line_and_a_box_apart_have_a_generalized_iou_of_minus_the_empty_part_of_the_hull() -> None:
    line, box = torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([0.5, 0.0, 1.0, 1.0])
    assert generalized_box_iou(line, box).item() == pytest.approx(-0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_coordinates_that_are_not_finite_do_not_raise_and_do_not_touch_other_pairs(bad: float) -> None:
    a, b = random_boxes(3), random_boxes(4)
    clean = generalized_box_iou(a[:, None], b)
    a[1, 2] = bad
    dirty = generalized_box_iou(a[:, None], b)
    assert torch.equal(dirty[[0, 2]], clean[[0, 2]])
    if math.isnan(bad):
        assert dirty[1].isnan().all()


def test_formats_convert_as_in_torchvision_and_back() -> None:
    boxes = random_boxes(50, torch.float64)
    centred = torchvision.ops.box_convert(boxes, "xyxy", "cxcywh")
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), centred)
    torch.testing.assert_close(cxcywh_to_xyxy(centred), boxes)


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_inverse_sigmoid_inverts_inside_and_is_bounded_at_the_ends(eps: float) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid(), eps=eps), x)
    bound = math.log(1 / eps)
    ends = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64), eps=eps)
    assert ends.tolist() == pytest.approx([-bound, -bound, bound, bound])


def test_inverse_sigmoid_has_finite_gradients_at_the_ends() -> None:
    x = torch.tensor([0.0, 1.0, 1e-9, 1 - 1e-7], requires_grad=True)
    inverse_sigmoid(x).sum().backward()
    assert x.grad.isfinite().all()

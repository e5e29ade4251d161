"""Box losses of pairs that are easy to compute by hand."""

import pytest
import torch

from hdetr_d2.losses import box_losses


def test_box_losses_of_a_pair_are_the_coordinate_differences_and_one_minus_the_generalized_iou() -> None:
    # Unit squares at (0.5, 0.5) and (1.5, 0.5): no overlap, hull 2 x 1, union 2.
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.2, 0.4]])
    targets = torch.tensor([[1.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.2, 0.4]])
    l1, giou = box_losses(boxes, targets)
    assert l1.tolist() == pytest.approx([1.0, 0.0])
    assert giou.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_a_box_that_is_inside_out_counts_as_its_centre_line_where_such_boxes_may_be() -> None:
    target = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    turned, flat = (torch.tensor([[0.3, 0.5, width, 0.2]]) for width in (-0.1, 0.0))
    l1, giou = box_losses(turned, target, inside_out=True)
    assert giou.tolist() == pytest.approx(box_losses(flat, target)[1].tolist())
    assert l1.item() == pytest.approx(0.9)

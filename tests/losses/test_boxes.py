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

"""References stay, move, or move and keep the graph of one layer."""

import pytest
import torch

from hdetr_d2.layers import inverse_sigmoid
from hdetr_d2.modeling.transformer.refinement import Refinement


def test_references_that_stay_are_the_same_place_in_every_layer() -> None:
    place = Refinement(moves=False).start(torch.rand(2, 3, 2))
    assert Refinement(moves=False).step(place, None) is place


@pytest.mark.parametrize("looks_twice", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_references_that_move_are_the_boxes_of_the_layer_before(looks_twice: bool, told: bool) -> None:
    refinement = Refinement(looks_twice=looks_twice)
    place = refinement.start(torch.rand(2, 3, 4))
    for _ in range(3):
        offset = torch.randn(2, 3, 4, requires_grad=True)
        boxes = refinement.boxes(place, offset)
        after = refinement.step(place, offset, boxes if told else None)
        assert after.reference is not None
        assert after.live is not None
        assert torch.equal(after.reference, boxes)
        assert torch.equal(after.live, boxes)
        assert not after.reference.requires_grad
        assert after.live.requires_grad is looks_twice
        place = after


def test_looking_twice_trains_one_layer_back_and_no_further() -> None:
    refinement = Refinement(looks_twice=True)
    place = refinement.start(torch.full((1, 1, 4), 0.5))
    offsets = [torch.full((1, 1, 4), 0.1, requires_grad=True) for _ in range(3)]
    for offset in offsets[:2]:
        place = refinement.step(place, offset)
    refinement.boxes(place, offsets[2]).sum().backward()
    assert [offset.grad is not None for offset in offsets] == [False, True, True]


def test_a_point_moves_the_centre_of_a_box_alone() -> None:
    reference, offset = torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[0.3, -0.2, 1.0, -1.0]]])
    refinement = Refinement(eps=1e-3)
    boxes = refinement.boxes(refinement.start(reference), offset)
    torch.testing.assert_close(boxes[..., :2], (inverse_sigmoid(reference, 1e-3) + offset[..., :2]).sigmoid())
    torch.testing.assert_close(boxes[..., 2:], offset[..., 2:].sigmoid())
    assert torch.equal(refinement.boxes(refinement.start(None), offset), offset.sigmoid())


def test_eps_bounds_how_far_a_reference_at_the_border_is_from_it() -> None:
    for eps in (1e-5, 1e-3):
        refinement = Refinement(eps=eps)
        boxes = refinement.boxes(refinement.start(torch.zeros(1, 1, 4)), torch.zeros(1, 1, 4))
        torch.testing.assert_close(boxes, torch.full((1, 1, 4), eps), rtol=1e-2, atol=0)

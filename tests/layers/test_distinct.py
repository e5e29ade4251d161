"""Which queries stand, on boxes whose survivors are known."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from hdetr_d2.layers import cxcywh_to_xyxy, standing_queries


def in_a_row(*shifts: float) -> Tensor:
    """Boxes of one size whose centres are so many widths from the first: two of shift d overlap (1 - d) / (1 + d)."""
    return torch.tensor([[0.2 + 0.1 * shift, 0.5, 0.1, 0.2] for shift in shifts])


def test_a_query_falls_to_a_better_one_that_stands_and_to_no_other() -> None:
    boxes = in_a_row(0.0, 0.2, 0.4, 3.0)  # neighbours overlap 2/3, the first and the third 3/7
    logits = torch.tensor([[2.0, -1.0], [-3.0, 1.0], [0.0, -9.0], [-5.0, -6.0]])
    assert standing_queries(logits, boxes, 0.5).tolist() == [True, False, True, True]
    assert standing_queries(logits, boxes, 0.4).tolist() == [True, False, False, True]
    assert standing_queries(logits, boxes, 0.7).tolist() == [True, True, True, True]


def test_the_best_class_decides_whatever_the_order_of_queries() -> None:
    boxes = in_a_row(0.0, 0.1, 0.0)
    logits = torch.tensor([[0.5, 0.0], [0.0, 0.6], [-1.0, 0.4]])
    assert standing_queries(logits, boxes, 0.5).tolist() == [False, True, False]
    assert standing_queries(logits.flip(0), boxes.flip(0), 0.5).tolist() == [False, True, False]


def test_of_equal_scores_the_first_stands_and_what_is_no_number_is_worst() -> None:
    boxes = in_a_row(0.0, 0.0, 0.0)
    assert standing_queries(torch.zeros(3, 4), boxes, 0.5).tolist() == [True, False, False]
    logits = torch.tensor([[float("nan")], [-8.0], [-9.0]])
    assert standing_queries(logits, boxes, 0.5).tolist() == [False, True, False]
    assert standing_queries(logits, boxes.masked_fill(logits.isnan(), torch.nan), 0.5).tolist() == [True, True, False]


def test_no_object_is_no_class_of_a_softmax() -> None:
    boxes = in_a_row(0.0, 0.0)
    logits = torch.tensor([[1.0, 0.0, 9.0], [0.5, 0.0, 0.0]])  # the second is the likelier object
    assert standing_queries(logits, boxes, 0.5, softmax=True).tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_image_of_every_layer_is_looked_at_alone(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 2, 40, 5).to(dtype)
    boxes = torch.cat([torch.rand(3, 2, 40, 2), 0.2 + 0.3 * torch.rand(3, 2, 40, 2)], dim=-1).to(dtype)
    found = standing_queries(logits.requires_grad_(), boxes.requires_grad_(), 0.4)
    assert found.shape == (3, 2, 40)
    assert not found.requires_grad
    for layer in range(3):
        for image in range(2):
            scores = logits[layer, image].detach().float().amax(-1)
            order = scores.argsort(descending=True, stable=True)
            corners = cxcywh_to_xyxy(boxes[layer, image].detach()).float()[order]
            kept = order[nms(corners, torch.arange(40, 0, -1.0), 0.4)]
            assert found[layer, image].nonzero()[:, 0].tolist() == sorted(kept.tolist())

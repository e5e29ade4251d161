"""Models of half precision as a whole, by ``.half()`` or ``.bfloat16()``, without autocast."""

from typing import Any

import pytest
import torch

from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, build

ALL = [*ONE_TO_ONE, *ONE_TO_MANY]
IMAGES = ((64, 96, 3), (96, 64, 2))  # each is padded


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_a_model_in_half_precision_detects_as_in_full(name: str, draw_batch: Any) -> None:
    batch = draw_batch(*IMAGES)
    expected = build(name).eval()(batch)
    for dtype, tolerance in ((torch.float16, 0.02), (torch.bfloat16, 0.1)):
        for found, full in zip(build(name).to(dtype).eval()(batch), expected, strict=True):
            ours, theirs = found["instances"], full["instances"]
            # Near ties are ranked otherwise, so that what is compared are the scores in order.
            scores, of_full = ours.scores.sort().values, theirs.scores.sort().values
            torch.testing.assert_close(scores, of_full, atol=tolerance, rtol=0)
            assert scores.dtype == ours.pred_boxes.tensor.dtype == torch.float32


@pytest.mark.parametrize("name", ALL)
def test_a_model_in_bfloat16_learns(name: str, draw_batch: Any) -> None:
    batch = draw_batch(*IMAGES)
    model = build(name).bfloat16().train()
    losses = model(batch)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.dtype == torch.bfloat16 and g.isfinite().all() for g in gradients)

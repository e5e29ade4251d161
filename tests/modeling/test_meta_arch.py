"""Images in, detections of the asked size out."""

from collections.abc import Callable
from typing import Any

import torch

from hdetr_d2.modeling import DETR


def test_detections_come_at_the_size_that_the_data_set_asks_for(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any]
) -> None:
    model, batch = build_tiny("hybrid").eval(), draw_batch((128, 128, 0))
    (small,) = model(batch)
    (large,) = model([{**batch[0], "height": 256, "width": 512}])
    (default,) = model([{"image": batch[0]["image"]}])
    assert large["instances"].image_size == (256, 512)
    scale = torch.tensor([4.0, 2.0, 4.0, 2.0])
    torch.testing.assert_close(large["instances"].pred_boxes.tensor, small["instances"].pred_boxes.tensor * scale)
    assert torch.equal(default["instances"].pred_boxes.tensor, small["instances"].pred_boxes.tensor)


def test_images_are_normalised_and_then_padded_with_zeros(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("base")
    images = [torch.full((3, 32, 64), 200, dtype=torch.uint8), torch.zeros(3, 64, 32, dtype=torch.uint8)]
    padded = model.preprocess([{"image": image} for image in images])
    assert padded.tensor.shape == (2, 3, 64, 64)
    assert padded.image_sizes == [(32, 64), (64, 32)]
    red = (200 - 123.675) / 58.395
    torch.testing.assert_close(padded.tensor[0, 0, :32], torch.full((32, 64), red))
    assert not padded.tensor[0, :, 32:].any() and not padded.tensor[1, :, :, 32:].any()

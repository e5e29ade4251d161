"""Images as people have them, tensors among them, as arrays of one kind."""

from __future__ import annotations

from typing import Any

import torch

from hdetr_d2.images import ChannelOrder, ImageInputError, Pixels, pixels_of

__all__ = ["ImageInputError", "Pixels", "to_pixels"]


def to_pixels(image: Any, *, channel_order: ChannelOrder = "rgb") -> Pixels:
    """Any image as (H, W, 3) uint8 RGB.

    Args:
        image: as `images.pixels_of` takes it; or a tensor, (3, H, W), (1, H, W) or (H, W), of uint8, or of floating
            point in [0, 1].
        channel_order: of arrays and tensors with three channels; OpenCV reads ``"bgr"``.

    Raises:
        ImageInputError: anything else.
        DatasetError: a file that cannot be read as an image.
    """
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
        if array.ndim == 3:
            if array.shape[0] not in (1, 3):
                raise ImageInputError(f"a tensor must be (3, H, W), not {tuple(array.shape)}; move the channels first")
            array = array.transpose(1, 2, 0)
        image = array
    return pixels_of(image, channel_order=channel_order)

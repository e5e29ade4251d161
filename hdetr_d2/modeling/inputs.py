"""What a model is given: images and targets of the host, as they are before one copy takes them to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hdetr_d2.arguments import ArgumentError
from hdetr_d2.layers import xyxy_to_cxcywh
from hdetr_d2.structures import BatchedTargets, Targets, image_of_each, offsets_of

from .cells import is_padded, outside, valid_pixels

_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def padded_pixels(images: Sequence[Tensor]) -> Tensor:
    """Images (C, h, w) of any sizes as one (B, C, H, W), with zeros below and to the right."""
    if len({image.dtype for image in images}) > 1:
        images = [image.float() for image in images]
    height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
    if not is_padded((height, width), [(image.shape[-2], image.shape[-1]) for image in images]):
        return torch.stack(list(images))
    pixels = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for to, image in zip(pixels, images):
        to[:, : image.shape[-2], : image.shape[-1]].copy_(image)
    return pixels


def normalized(pixels: Tensor, sizes: Sequence[tuple[int, int]], mean: Tensor, std: Tensor) -> Tensor:
    """Pixels (B, C, H, W) less the mean, divided by the deviation, and zero on padding; of the dtype of ``mean``.

    Args:
        pixels: as of ``padded_pixels``, on the device.
        sizes: (h, w) of each image.
        mean, std: (C, 1, 1).
    """
    result = (pixels.float() - mean) / std
    padded_size = (pixels.shape[-2], pixels.shape[-1])
    if is_padded(padded_size, sizes):
        padding = outside(*valid_pixels(padded_size, sizes, pixels.device)).unflatten(1, padded_size)
        result = result.masked_fill(padding[:, None], 0.0)
    return result.to(mean.dtype)


@dataclass(frozen=True)
class HostTargets:
    """The objects of a batch on the host.

    Args:
        labels: (M,) int64.
        boxes: (M, 4) cxcywh in [0, 1], float32.
        counts: objects of each image.
        lists: the classes, (A,) int64 each, that every image says of some that they are ``negatives``, and of some that
            they are ``not_exhaustive`` (``Targets``); None where it says nothing.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    lists: list[tuple[Tensor | None, ...]]

    @classmethod
    def of(cls, batched_inputs: Sequence[Mapping[str, Any]], num_classes: int) -> HostTargets:
        """From Detectron2 dicts with ``instances``.

        Raises:
            ArgumentError: for a class outside [0, num_classes), naming the image.
        """
        instances = [x["instances"] for x in batched_inputs]
        counts = tuple(len(of_image.gt_classes) for of_image in instances)
        labels = torch.cat([of_image.gt_classes.cpu() for of_image in instances])
        outside = ((labels < 0) | (labels >= num_classes)).nonzero()
        if len(outside):
            first = int(outside[0])
            x = batched_inputs[int(image_of_each(counts)[first])]
            raise ArgumentError(
                f"{x.get('file_name', x.get('image_id', 'image'))}: class {int(labels[first])} is outside the "
                f"{num_classes} classes of the model; set dataset.num_classes"
            )
        boxes = torch.cat([of_image.gt_boxes.tensor.to("cpu", torch.float32) for of_image in instances])
        sizes = torch.tensor([[w, h, w, h] for h, w in (of_image.image_size for of_image in instances)])
        scale = sizes.float().repeat_interleave(torch.tensor(counts), 0)
        lists = [
            tuple(torch.tensor(x[key], dtype=torch.int64) if key in x else None for key in _LISTS)
            for x in batched_inputs
        ]
        return cls(labels, xyxy_to_cxcywh(boxes / scale), counts, lists)

    @property
    def tensors(self) -> list[Tensor]:
        """All that has to go to the device."""
        lists = [x for of_image in self.lists for x in of_image if x is not None]
        return [self.labels, self.boxes, image_of_each(self.counts), *lists]

    def at(self, tensors: Sequence[Tensor]) -> BatchedTargets:
        """The targets, with ``tensors`` where they are on the device."""
        labels, boxes, image, *rest = tensors
        remaining = iter(rest)
        lists = [[None if x is None else next(remaining) for x in of_image] for of_image in self.lists]
        parts = zip(labels.split(self.counts), boxes.split(self.counts), lists)
        images = tuple(Targets(*part, *of_image) for *part, of_image in parts)
        return BatchedTargets(images, labels, boxes, image, self.counts, offsets_of(self.counts), self.labels)

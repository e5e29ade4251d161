"""What a file feeds a model with, checked before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor

from hdetr_d2.structures import Targets

from .archive import Archive
from .errors import ParityError


class GivenFeatures(Backbone):
    """Stands for the backbone, whose features come from the file.

    Args:
        channels: of each feature, finest first.
    """

    def __init__(self, *, channels: list[int]) -> None:
        super().__init__()
        self._out_features = feature_names(channels)
        self._out_feature_channels = dict(zip(self._out_features, channels))
        self._out_feature_strides = {name: 8 * 2**i for i, name in enumerate(self._out_features)}

    def forward(self, x: Tensor) -> dict[str, ShapeSpec]:
        """Not called: the features go into ``DETR.predict``."""
        raise NotImplementedError("the features of a parity file are given, not computed")


def feature_names(channels: Sequence[int]) -> list[str]:
    """Names of the features, finest first."""
    return [f"res{i + 3}" for i in range(len(channels))]


@dataclass(frozen=True)
class Inputs:
    """A batch.

    Args:
        features: by name, (B, C_i, H_i, W_i).
        padded_size: (H, W) in pixels.
        image_sizes: (h, w) of each image.
        targets: one an image.
    """

    features: dict[str, Tensor]
    padded_size: tuple[int, int]
    image_sizes: list[tuple[int, int]]
    targets: list[Targets]

    @property
    def arguments(self) -> tuple[dict[str, Tensor], tuple[int, int], list[tuple[int, int]]]:
        """As ``DETR.predict`` takes them."""
        return self.features, self.padded_size, self.image_sizes


def read_inputs(
    data: Archive, *, channels: Sequence[int], num_classes: int, frame: tuple[int, int] | None = None
) -> Inputs:
    """Features, sizes and targets of a file or block.

    Args:
        data: arrays of the file or block.
        channels: of the features, finest first.
        num_classes: K.
        frame: (H, W) of a file whose images are not padded; None where ``in/mask`` says what is padding.

    Raises:
        ParityError: arrays are missing, of other shapes or contradict each other.
    """
    features = {
        name: data.shaped(f"in/feat{i}", None, channels[i], None, None).float()
        for i, name in enumerate(feature_names(channels))
    }
    batch = len(features["res3"])
    for i, feature in enumerate(features.values()):
        if len(feature) != batch:
            raise ParityError(f"in/feat{i} has {len(feature)} images and in/feat0 has {batch}")
    targets = [read_targets(data, image, num_classes) for image in range(batch)]
    if frame is not None:
        return Inputs(features, frame, [frame] * batch, targets)
    mask = data.shaped("in/mask", batch, None, None)
    sizes = [(int(height), int(width)) for height, width in data.shaped("in/image_sizes", batch, 2)]
    if sizes != valid_sizes(mask, "in/mask"):
        raise ParityError("in/mask is not the padding that in/image_sizes leaves")
    return Inputs(features, (mask.shape[1], mask.shape[2]), sizes, targets)


def valid_sizes(mask: Tensor, key: str) -> list[tuple[int, int]]:
    """Height and width of each image from (B, H, W), True on padding.

    Raises:
        ParityError: padding is not all below and to the right.
    """
    valid = ~mask.bool()
    sizes = [(int(image[:, 0].sum()), int(image[0].sum())) for image in valid]
    for image, (height, width) in zip(valid, sizes):
        if not image[:height, :width].all() or int(image.sum()) != height * width:
            raise ParityError(f"{key} has padding that is not below and to the right of an image")
    return sizes


def read_targets(data: Archive, image: int, num_classes: int) -> Targets:
    """The objects of one image.

    Raises:
        ParityError: they are missing, malformed or of unknown classes.
    """
    labels = data.shaped(f"gt/{image}/labels", None).long()
    boxes = data.shaped(f"gt/{image}/boxes_cxcywh", len(labels), 4).float()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ParityError(f"gt/{image}/labels has classes outside 0 to {num_classes - 1}")
    if not torch.isfinite(boxes).all():
        raise ParityError(f"gt/{image}/boxes_cxcywh has numbers that are not finite")
    return Targets(labels=labels, boxes=boxes)

"""What is matched: the predictions of a group beside the targets of their images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from hdetr_d2.structures import BatchedTargets, Predictions


class Scored(NamedTuple):
    """Some layers of a group, and what they are matched with.

    Args:
        logits: (L, B, N, K).
        boxes: (L, B, N, 4) cxcywh in [0, 1].
        labels: (M,) int64, the targets of all images, image after image.
        target_boxes: (M, 4) cxcywh in [0, 1].
        image: (M,) int64 in [0, B), ascending.
        counts: how many each of the B images has.
    """

    logits: Tensor
    boxes: Tensor
    labels: Tensor
    target_boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, predictions: Predictions, layers: Sequence[int], targets: BatchedTargets) -> Self:
        """Some layers of predictions, beside the targets of their images."""
        logits, boxes = (_at(x, layers) for x in (predictions.logits, predictions.boxes))
        return cls(logits, boxes, targets.labels, targets.boxes, targets.image, targets.counts)

    @property
    def queries(self) -> int:
        """Predictions of an image, L * N."""
        return self.logits.shape[0] * self.logits.shape[2]

    def part(self, start: int, stop: int) -> "Scored":
        """Of the images from ``start`` to before ``stop``."""
        first, last = sum(self.counts[:start]), sum(self.counts[:stop])
        return Scored(
            self.logits[:, start:stop],
            self.boxes[:, start:stop],
            self.labels[first:last],
            self.target_boxes[first:last],
            self.image[first:last] - start if start else self.image[first:last],
            self.counts[start:stop],
        )

    def images(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each image that has targets: logits (L, N, K), boxes (L, N, 4), labels and target boxes."""
        labels, target_boxes = self.labels.split(self.counts), self.target_boxes.split(self.counts)
        for image, count in enumerate(self.counts):
            if count:
                yield self.logits[:, image], self.boxes[:, image], labels[image], target_boxes[image]


def _at(x: Tensor, layers: Sequence[int]) -> Tensor:
    """Some layers, without an index that would have to go to the device."""
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return x[layers[0] : layers[-1] + 1]
    return torch.stack([x[layer] for layer in layers])

"""What is done to the images of an optimiser step together: mixing two of them, one random size for all.

The decisions are those of the step, the same in every process and micro-batch, and follow from (seed, step) alone.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .context import ALWAYS, Record, StepContext, as_range

# see StepContext.generator
_MIX_UP, _MULTI_SCALE = 1, 2


class BatchTransform(ABC):
    """A change of the samples that one process gets for a micro-batch.

    Attributes:
        mixes: whether a sample may need the one before it, see ``needs_previous``.
    """

    mixes = False

    def needs_previous(self, context: StepContext) -> bool:
        """Whether in this step ``samples`` must begin with the sample that comes before this process's own.

        The one before the first of a step is the step's last.
        """
        return False

    @abstractmethod
    def __call__(self, samples: list[Record], context: StepContext) -> list[Record]:
        """New samples for ``samples``, which are left as they are; without the extra first one, if there was one."""


class MixUp(BatchTransform):
    """The mean of each image and the one before it in the step, with the objects of both (mixup, as in DEIM).

    image_i <- b image_i + (1 - b) image_{i-1}, b the same for the whole step; objects of image i come first. All
    images must have one size. The result is float32, in the range of the input, and objects have no weights.

    Args:
        probability: that a step mixes, in ``epochs``.
        epochs: from the first on, before the second.
        share: range of b.
    """

    mixes = True

    def __init__(
        self, *, probability: float = 0.5, epochs: Sequence[float] = ALWAYS, share: Sequence[float] = (0.45, 0.55)
    ) -> None:
        self.probability = probability
        self.epochs = as_range(epochs, "MixUp: epochs")
        self.share = as_range(share, "MixUp: share", highest=1.0)

    def draw(self, context: StepContext) -> float | None:
        """B of this step, None where it does not mix."""
        generator = context.generator(_MIX_UP)
        due = generator.random() < self.probability
        share = round(float(generator.uniform(*self.share)), 6)
        return share if due and self.epochs[0] <= context.epoch < self.epochs[1] else None

    def needs_previous(self, context: StepContext) -> bool:
        return self.draw(context) is not None

    def __call__(self, samples: list[Record], context: StepContext) -> list[Record]:
        share = self.draw(context)
        if share is None:
            return samples
        return [mix(sample, before, share) for before, sample in itertools.pairwise(samples)]


def mix(sample: Record, other: Record, share: float) -> Record:
    """``share`` of ``sample``'s pixels and the rest of ``other``'s, with the objects of both, its own first.

    Raises:
        ValueError: the images differ in size.
    """
    if sample["image"].shape != other["image"].shape:
        raise ValueError(
            f"MixUp: {sample.get('file_name')} and {other.get('file_name')} have sizes {tuple(sample['image'].shape)} "
            f"and {tuple(other['image'].shape)} after augmentation; end the augmentations with a resize to one size"
        )
    image = other["image"].float().mul(1.0 - share).add_(sample["image"].float().mul(share))
    instances = Instances.cat([sample["instances"], other["instances"]])
    joint = joint_verification([sample, other]) | {"image": image, "instances": instances, "to_file": None}
    return {**sample, **joint}


def joint_verification(records: Sequence[Record]) -> dict[str, Any]:
    """LVIS's verified classes of one image made of several; {} for data without.

    A class is known to be absent only if it is so in all of them, and unfinished if it is so in one.
    """
    joint: dict[str, Any] = {}
    if all("neg_category_ids" in record for record in records):
        joint["neg_category_ids"] = sorted(set.intersection(*(set(r["neg_category_ids"]) for r in records)))
    if all("not_exhaustive_category_ids" in record for record in records):
        joint["not_exhaustive_category_ids"] = sorted(set().union(*(r["not_exhaustive_category_ids"] for r in records)))
    return joint


def surrounding_sizes(base: int, repeats: int) -> list[int]:
    """Multiples of 32 from 3/4 to 5/4 of ``base``, which itself stands ``repeats`` times (RT-DETR's rule)."""
    lowest, highest = int(base * 0.75 / 32) * 32, int(base * 1.25 / 32) * 32
    steps = (base - lowest) // 32
    below = [lowest + 32 * i for i in range(steps)]
    above = [highest - 32 * i for i in range(steps)]
    return sorted([*below, *[base] * repeats, *above])


class MultiScale(BatchTransform):
    """One random size for the whole step (RT-DETR): 480 to 800 in steps of 32 around 640.

    An image of ``base`` pixels gets the drawn size, another one changes by the same factor; each pixel is that of the
    nearest source pixel, as the authors do it.

    Args:
        base: size of the augmented images.
        repeats: how often ``base`` is among the sizes.
        sizes: drawn with equal probability; None is `surrounding_sizes`, with ``repeats`` 3 the 13 sizes of RT-DETR.
        epochs: from the first on, before the second.
    """

    def __init__(
        self,
        *,
        base: int = 640,
        repeats: int = 3,
        sizes: Sequence[int] | None = None,
        epochs: Sequence[float] = ALWAYS,
    ) -> None:
        self.base = base
        self.sizes = surrounding_sizes(base, repeats) if sizes is None else list(sizes)
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"MultiScale: sizes must be positive, not {self.sizes}")
        self.epochs = as_range(epochs, "MultiScale: epochs")

    def draw(self, context: StepContext) -> int:
        """The size of this step."""
        drawn = int(context.generator(_MULTI_SCALE).choice(self.sizes))
        return drawn if self.epochs[0] <= context.epoch < self.epochs[1] else self.base

    def __call__(self, samples: list[Record], context: StepContext) -> list[Record]:
        factor = self.draw(context) / self.base
        return samples if factor == 1 else [resize(sample, factor) for sample in samples]


def resize(sample: Record, factor: float) -> Record:
    """Image and boxes by ``factor``, sides rounded to whole pixels."""
    image: Tensor = sample["image"]
    height, width = image.shape[-2:]
    new_height, new_width = (max(1, round(side * factor)) for side in (height, width))
    resized = torch.nn.functional.interpolate(image[None], size=(new_height, new_width), mode="nearest")[0]
    old: Instances = sample["instances"]
    instances = Instances((new_height, new_width), **old.get_fields())
    ratio = torch.tensor([new_width / width, new_height / height] * 2)
    instances.gt_boxes = Boxes(old.gt_boxes.tensor * ratio)
    return {**sample, "image": resized, "instances": instances}

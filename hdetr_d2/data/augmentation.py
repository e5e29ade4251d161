"""The augmentation of DETR and Deformable-DETR on Detectron2's transforms, at any image size.

All lengths follow from one, the largest short side of training (800 in the papers), so that the recipe can be used on
smaller images: half of it gives half of every length. Decisions come from NumPy's global generator, as in all of
Detectron2's transforms; the loader seeds it for every sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T

# DETR's numbers (its datasets/coco.py), all in pixels of the short side unless said otherwise.
_SHORT_SIDE = 800
_SCALES = tuple(range(480, 801, 32))
_MAX_LONG_SIDE = 1333
_SCALES_BEFORE_CROP = (400, 500, 600)
_CROP_RANGE = (384, 600)  # of width and height, drawn independently


class ResizeShortestSide(T.ResizeShortestEdge):
    """Detectron2's resize, of which no side of a long strip is rounded to nothing."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(1, transform.new_h), max(1, transform.new_w)
        return transform


class RandomChoice(T.Augmentation):
    """Applies one of several augmentations.

    Args:
        choices: each an augmentation or a sequence of them, applied in order.
        probabilities: of the choices, sum 1; None means equally likely.
    """

    def __init__(
        self,
        *,
        choices: Sequence[T.Augmentation | Sequence[T.Augmentation]],
        probabilities: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if probabilities is not None and (len(probabilities) != len(choices) or not np.isclose(sum(probabilities), 1)):
            raise ValueError(f"{len(choices)} choices need as many probabilities with sum 1, got {probabilities}")
        self.choices = [c if isinstance(c, T.Augmentation) else T.AugmentationList(c) for c in choices]
        self.probabilities = None if probabilities is None else list(probabilities)

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        index = np.random.choice(len(self.choices), p=self.probabilities)  # noqa: NPY002  (the generator of Detectron2)
        return self.choices[index](aug_input)


def detr_train_augmentation(
    *,
    short_side: int = _SHORT_SIDE,
    scales: Sequence[int] | None = None,
    max_long_side: int | None = None,
    flip_probability: float = 0.5,
    crop_probability: float = 0.5,
) -> list[T.Augmentation]:
    """Flip, then either resize, or resize, crop and resize (Carion et al., ECCV 2020; datasets/coco.py of DETR).

    With the defaults these are the published numbers: short side from 480 to 800 in steps of 32, long side at most
    1333; the other branch resizes the short side to 400, 500 or 600 first and crops 384 to 600 pixels of width and
    height.

    Args:
        short_side: largest short side in pixels; every length that is not given is DETR's times ``short_side / 800``.
        scales: short sides to draw from.
        max_long_side: limit of the long side.
        flip_probability: of a horizontal flip.
        crop_probability: of the branch with the crop.
    """
    factor = short_side / _SHORT_SIDE
    sides = [max(1, round(s * factor)) for s in _SCALES] if scales is None else [int(s) for s in scales]
    longest = round(_MAX_LONG_SIDE * factor) if max_long_side is None else max_long_side
    crop = tuple(max(1, round(s * factor)) for s in _CROP_RANGE)
    before = [max(1, round(s * factor)) for s in _SCALES_BEFORE_CROP]
    resize = ResizeShortestSide(sides, longest, sample_style="choice")
    crop_branch = [
        # DETR has no limit here; strips of more than 1 : 20 would take gigabytes, COCO has none
        ResizeShortestSide(before, max_size=20 * max(before), sample_style="choice"),
        T.RandomCrop("absolute_range", crop),
        ResizeShortestSide(sides, longest, sample_style="choice"),
    ]
    return [
        T.RandomFlip(prob=flip_probability),
        RandomChoice(choices=[[resize], crop_branch], probabilities=[1.0 - crop_probability, crop_probability]),
    ]


def detr_test_augmentation(*, short_side: int = _SHORT_SIDE, max_long_side: int | None = None) -> list[T.Augmentation]:
    """The resize of evaluation.

    Args:
        short_side: in pixels.
        max_long_side: limit of the long side, by default ``short_side * 1333 / 800``.
    """
    longest = round(_MAX_LONG_SIDE * short_side / _SHORT_SIDE) if max_long_side is None else max_long_side
    return [ResizeShortestSide(short_side, longest)]

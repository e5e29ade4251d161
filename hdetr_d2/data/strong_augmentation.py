"""The stronger augmentation of RT-DETR and DEIM as Detectron2 augmentations.

Photometric distortion, zooming out and cropping by overlap are those of SSD (Liu et al., ECCV 2016, section 3.6), with
the ranges of torchvision's transforms, which both projects use. All decisions come from NumPy's global generator.
"""

# ruff: noqa: NPY002  (the generator of Detectron2's transforms)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torchvision.transforms.functional as F
from detectron2.data import transforms as T
from PIL import Image

from hdetr_d2.annotations import pairwise_iou, xyxy_to_xywh

from .context import ALWAYS, as_range


class ScheduledInput(T.AugInput):
    """Detectron2's input of augmentations, with what `During` asks for.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) XYXY pixels.
        epoch: of training.
        is_mosaic: whether the image was put together of several.
    """

    def __init__(
        self, image: np.ndarray, *, boxes: np.ndarray | None = None, epoch: float = 0.0, is_mosaic: bool = False
    ) -> None:
        super().__init__(image, boxes=boxes)
        self.epoch = epoch
        self.is_mosaic = is_mosaic


class During(T.Augmentation):
    """Applies augmentations in some epochs only.

    Args:
        augmentations: applied in order.
        epochs: from the first on, before the second.
        unless_mosaic: leave out images that are mosaics.
    """

    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        epochs: Sequence[float] = ALWAYS,
        unless_mosaic: bool = False,
    ) -> None:
        super().__init__()
        self.augmentations = T.AugmentationList(list(augmentations))
        self.epochs = as_range(epochs, "During: epochs")
        self.unless_mosaic = unless_mosaic

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        if not isinstance(aug_input, ScheduledInput):
            raise TypeError(f"During needs a ScheduledInput, as DetrDatasetMapper gives it, not {type(aug_input)}")
        if not self.epochs[0] <= aug_input.epoch < self.epochs[1] or (self.unless_mosaic and aug_input.is_mosaic):
            return T.NoOpTransform()
        return self.augmentations(aug_input)


class PhotometricTransform(T.Transform):
    """Brightness, contrast, saturation, hue and order of the channels; None leaves one as it is.

    Args:
        hue: shift, in turns of the colour circle.
        contrast_first: contrast before saturation and hue, not after.
        channels: the new order.
    """

    def __init__(
        self,
        *,
        brightness: float | None = None,
        contrast: float | None = None,
        saturation: float | None = None,
        hue: float | None = None,
        contrast_first: bool = True,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.contrast_first = contrast_first
        self.channels = None if channels is None else list(channels)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """The changed (H, W, 3) uint8 image."""
        image = Image.fromarray(img)
        if self.brightness is not None:
            image = F.adjust_brightness(image, self.brightness)
        if self.contrast is not None and self.contrast_first:
            image = F.adjust_contrast(image, self.contrast)
        if self.saturation is not None:
            image = F.adjust_saturation(image, self.saturation)
        if self.hue is not None:
            image = F.adjust_hue(image, self.hue)
        if self.contrast is not None and not self.contrast_first:
            image = F.adjust_contrast(image, self.contrast)
        pixels = np.asarray(image)
        return pixels if self.channels is None else pixels[..., self.channels]

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


class PhotometricDistortion(T.Augmentation):
    """Random `PhotometricTransform`.

    Args:
        probability: of each of the five changes, drawn independently.
        brightness, contrast, saturation: ranges of the factors.
        hue: range of the shift.
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        brightness: Sequence[float] = (0.875, 1.125),
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: Sequence[float] = (-0.05, 0.05),
    ) -> None:
        super().__init__()
        self.probability = probability
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.ranges = {name: as_range(limits, f"PhotometricDistortion: {name}") for name, limits in factors.items()}
        self.ranges["hue"] = as_range(hue, "PhotometricDistortion: hue", lowest=-0.5, highest=0.5)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Drawn anew; it changes pixels only."""
        drawn = {
            name: float(np.random.uniform(*limits)) if np.random.rand() < self.probability else None
            for name, limits in self.ranges.items()
        }
        contrast_first = bool(np.random.rand() < 0.5)
        channels = np.random.permutation(image.shape[2]).tolist() if np.random.rand() < self.probability else None
        return PhotometricTransform(**drawn, contrast_first=contrast_first, channels=channels)


class ZoomOut(T.Augmentation):
    """Puts the image somewhere on a larger canvas.

    Args:
        probability: of zooming out.
        side_range: of the canvas's sides by those of the image; one factor for both.
        fill: value of the canvas.
    """

    def __init__(
        self, *, probability: float = 0.5, side_range: Sequence[float] = (1.0, 4.0), fill: float = 0.0
    ) -> None:
        super().__init__()
        self.probability = probability
        self.side_range = as_range(side_range, "ZoomOut: side_range", lowest=1.0)
        self.fill = fill

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Drawn anew, for an image of this size."""
        if np.random.rand() >= self.probability:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        factor = np.random.uniform(*self.side_range)
        more_width, more_height = int(width * factor) - width, int(height * factor) - height
        left, top = (int(more * np.random.rand()) for more in (more_width, more_height))
        return T.PadTransform(left, top, more_width - left, more_height - top, width, height, pad_value=self.fill)


class KeepInsideCropTransform(T.CropTransform):
    """A crop that keeps only boxes whose centre is strictly inside of it; the others become points."""

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        inside = centres_inside(box, self.x0, self.y0, self.x0 + self.w, self.y0 + self.h)
        return np.where(inside[:, None], super().apply_box(box), 0.0)


def centres_inside(boxes: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """(N,) bool: whether the centres of (N, 4) XYXY boxes are strictly inside of a rectangle."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > (x0, y0)) & (centres < (x1, y1))).all(axis=1)


class OverlapCrop(T.Augmentation):
    """A random crop that overlaps some box enough; boxes whose centre is outside are left out.

    An image without boxes is left as it is.

    Args:
        probability: of cropping at all.
        scale: range of the crop's sides by those of the image, drawn independently.
        aspect_ratio: range that width / height must be in.
        min_overlaps: smallest IoU of the crop with one of the boxes it keeps, drawn anew until a crop is found; 1 or
            more is no crop.
        trials: crops tried for a drawn overlap.
    """

    def __init__(
        self,
        *,
        probability: float = 0.8,
        scale: Sequence[float] = (0.3, 1.0),
        aspect_ratio: Sequence[float] = (0.5, 2.0),
        min_overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
    ) -> None:
        super().__init__()
        if max(min_overlaps) < 1:
            raise ValueError("OverlapCrop: min_overlaps must have a value of at least 1, or the search may not end")
        self.probability = probability
        self.scale = as_range(scale, "OverlapCrop: scale", highest=1.0)
        self.aspect_ratio = as_range(aspect_ratio, "OverlapCrop: aspect_ratio")
        self.min_overlaps = tuple(min_overlaps)
        self.trials = trials

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """Drawn anew, for an image of this size with (N, 4) XYXY boxes."""
        if np.random.rand() >= self.probability or boxes is None or not len(boxes):
            return T.NoOpTransform()
        while True:
            overlap = self.min_overlaps[np.random.randint(len(self.min_overlaps))]
            if overlap >= 1:
                return T.NoOpTransform()
            for _ in range(self.trials):
                crop = self._draw(image.shape[1], image.shape[0])
                if crop is not None and best_overlap(boxes, crop) >= overlap:
                    x0, y0, x1, y1 = crop
                    return KeepInsideCropTransform(x0, y0, x1 - x0, y1 - y0, image.shape[1], image.shape[0])

    def _draw(self, width: int, height: int) -> tuple[int, int, int, int] | None:
        """XYXY of a crop, None where its form is not allowed."""
        crop_width, crop_height = (int(side * np.random.uniform(*self.scale)) for side in (width, height))
        if not (crop_width and crop_height):
            return None
        if not self.aspect_ratio[0] <= crop_width / crop_height <= self.aspect_ratio[1]:
            return None
        left = int((width - crop_width) * np.random.rand())
        top = int((height - crop_height) * np.random.rand())
        return left, top, left + crop_width, top + crop_height


def best_overlap(boxes: np.ndarray, crop: tuple[int, int, int, int]) -> float:
    """Largest IoU of ``crop`` with a box whose centre is inside of it; -1 where there is none (all XYXY)."""
    kept = boxes[centres_inside(boxes, *crop)]
    if not len(kept):
        return -1.0
    return float(pairwise_iou(xyxy_to_xywh(kept), xyxy_to_xywh(np.array([crop]))).max())


class _SmallBoxesToPoints(T.NoOpTransform):
    """Clips boxes to the image, and makes those with a side below ``min_size`` points, which the mapper leaves out."""

    def __init__(self, *, min_size: float, width: int, height: int) -> None:
        super().__init__()
        self.min_size, self.width, self.height = min_size, width, height

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        clipped = np.clip(box, 0.0, np.array([self.width, self.height] * 2, dtype=np.float64))
        large = ((clipped[:, 2:] - clipped[:, :2]) >= self.min_size).all(axis=1)
        return np.where(large[:, None], clipped, 0.0)


class DropSmallBoxes(T.Augmentation):
    """Clips boxes to the image as it is at this point, and leaves out those with a side below ``min_size`` pixels."""

    def __init__(self, *, min_size: float = 1.0) -> None:
        super().__init__()
        self.min_size = min_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return _SmallBoxesToPoints(min_size=self.min_size, width=image.shape[1], height=image.shape[0])


def square_train_augmentation(
    *,
    size: int = 640,
    flip_probability: float = 0.5,
    photometric_probability: float = 0.5,
    zoom_out_probability: float = 0.5,
    crop_probability: float = 0.8,
    strong_epochs: Sequence[float] = ALWAYS,
) -> list[T.Augmentation]:
    """RT-DETR's augmentation (Zhao et al., CVPR 2024; its ``coco_detection`` configs), images squashed to a square.

    Distortion, zoom out, crop, flip, resize; boxes with a side below a pixel before the flip or after the resize are
    left out. Mosaics are neither zoomed out nor cropped, as in DEIM.

    Args:
        size: of the result, both sides; the aspect ratio is not kept.
        flip_probability: of a horizontal flip.
        photometric_probability: of each photometric change.
        zoom_out_probability: of zooming out up to four times.
        crop_probability: of a crop by overlap.
        strong_epochs: when all but flip and resize are on; RT-DETRv2 and DEIM end before training does.
    """
    distort = PhotometricDistortion(probability=photometric_probability)
    zoom = [ZoomOut(probability=zoom_out_probability), OverlapCrop(probability=crop_probability)]
    return [
        During(augmentations=[distort], epochs=strong_epochs),
        During(augmentations=zoom, epochs=strong_epochs, unless_mosaic=True),
        DropSmallBoxes(min_size=1.0),
        T.RandomFlip(prob=flip_probability),
        T.Resize((size, size)),
        DropSmallBoxes(min_size=1.0),
    ]


def square_test_augmentation(*, size: int = 640) -> list[T.Augmentation]:
    """The resize of RT-DETR's evaluation: both sides to ``size``, the aspect ratio is not kept."""
    return [T.Resize((size, size))]

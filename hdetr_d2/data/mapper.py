"""From a dataset dict to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances

from hdetr_d2.images import read_rgb_image

from .batch_transforms import joint_verification
from .context import ContextMapper, Record, SampleContext
from .errors import UnusableImageError
from .mosaic import LabelledImage, Mosaic
from .strong_augmentation import ScheduledInput


class DetrDatasetMapper(ContextMapper):
    """Decodes, augments and packs one sample (a Detectron2 dataset mapper).

    Output: file_name, image_id, height and width (of the file) as they came; image, (3, H, W) uint8 RGB tensor after
    augmentation; in training also instances, with gt_boxes (Boxes, XYXY pixels of the augmented image, clipped to it)
    gt_classes (int64) and gt_annotation_ids (int64, -1 where the record has none, and in mosaics). Crowd regions and
    boxes that a crop left without area are not among them. LVIS's neg_category_ids and not_exhaustive_category_ids are
    passed on. to_file, in training, is how (x, y) in [0, 1] of the augmented image becomes pixels of the file:
    (x scale, y scale, x offset, y offset), None where that is no such map.

    Args:
        augmentations: Detectron2 augmentations, or a list of them as ``detr_train_augmentation`` gives it.
        is_train: whether to produce instances.
        min_box_size: boxes with a smaller side (pixels, after augmentation) are left out.
        mosaic: in training, puts some images together with three others before the augmentations; what is passed on
            of the record is that of the first.
    """

    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        is_train: bool,
        min_box_size: float = 1e-5,
        mosaic: Mosaic | None = None,
    ) -> None:
        self.augmentations = T.AugmentationList(list(augmentations))
        self.is_train = is_train
        self.min_box_size = min_box_size
        self.mosaic = mosaic

    def __call__(self, record: Record, context: SampleContext | None = None) -> Record:
        """Maps one dataset dict, which is left as it is.

        Args:
            context: of the sample in training; None is the first epoch, without a dataset to take more images from.

        Raises:
            UnusableImageError: the image file is missing, corrupt or of another size than the record says.
        """
        context = context or SampleContext()
        sample = {key: value for key, value in record.items() if key != "annotations"}
        item = self._read(record)
        is_mosaic = self.is_train and self.mosaic is not None and self.mosaic.is_due(context.epoch)
        if is_mosaic:
            item = self._mosaic(item, record, sample, context.dataset)
        boxes = item.boxes if self.is_train else None
        aug_input = ScheduledInput(item.image, boxes=boxes, epoch=context.epoch, is_mosaic=is_mosaic)
        transforms = self.augmentations(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        sample["image"] = torch.from_numpy(pixels)
        if self.is_train:
            ids = None if is_mosaic else [a.get("id", -1) for a in _objects(record)]
            sample["instances"] = self._instances(aug_input.boxes, item.classes, aug_input.image.shape[:2], ids)
            sample["to_file"] = None if is_mosaic else _to_file(transforms, item.size, aug_input.image.shape[:2])
        return sample

    def _read(self, record: Record) -> LabelledImage:
        """The image and, in training, its objects without crowd regions."""
        image = read_rgb_image(record["file_name"], height=record["height"], width=record["width"])
        kept = _objects(record) if self.is_train else []
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in kept]
        return LabelledImage(
            image,
            np.array(boxes, dtype=np.float64).reshape(-1, 4),
            np.array([a["category_id"] for a in kept], dtype=np.int64),
        )

    def _mosaic(
        self, item: LabelledImage, record: Record, sample: dict[str, Any], dataset: Sequence[Record]
    ) -> LabelledImage:
        """``item`` with three others of ``dataset``; an unusable file among them is replaced by the next image."""
        assert self.mosaic is not None
        if not len(dataset):
            raise ValueError("a mosaic takes further images from the dataset; use the mapper in build_train_loader")
        items, records, skipped = [item], [record], []
        for index in np.random.randint(len(dataset), size=3):  # noqa: NPY002  (the generator of the other transforms)
            for shift in range(len(dataset)):
                other = dataset[(int(index) + shift) % len(dataset)]
                try:
                    items.append(self._read(other))
                except UnusableImageError as error:
                    skipped.append(str(error))
                    continue
                records.append(other)
                break
        sample.update(joint_verification(records))
        if skipped:
            sample["skipped_files"] = skipped
        return self.mosaic(items)

    def _instances(
        self, boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], ids: Sequence[int] | None
    ) -> Instances:
        height, width = size
        boxes = np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))
        sides = boxes[:, 2:] - boxes[:, :2]
        visible = (sides > self.min_box_size).all(axis=1)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes[visible].astype(np.float32)))
        instances.gt_classes = torch.from_numpy(classes[visible])
        numbers = np.full(len(classes), -1, dtype=np.int64) if ids is None else np.array(ids, dtype=np.int64)
        instances.gt_annotation_ids = torch.from_numpy(numbers[visible])
        return instances


def _objects(record: Record) -> list[dict[str, Any]]:
    """Its annotations without crowd regions."""
    return [a for a in record["annotations"] if not a.get("iscrowd", 0)]


def _to_file(
    transforms: T.Transform, size: tuple[int, int], new_size: tuple[int, ...]
) -> tuple[float, float, float, float] | None:
    """Where the augmented image lies in the file's, both by (height, width); from where its corners went."""
    corners = np.array([[0.0, 0.0], [size[1], size[0]], [size[1], 0.0]])
    low, high, other = transforms.apply_coords(corners) / np.array([new_size[1], new_size[0]])
    extent = high - low
    if not np.allclose(other, [high[0], low[1]]) or not np.abs(extent).min() > 0:
        return None  # turned
    scale = np.array([size[1], size[0]]) / extent
    x, y = (-low * scale).tolist()
    return float(scale[0]), float(scale[1]), x, y

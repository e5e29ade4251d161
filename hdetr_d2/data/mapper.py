"""From a dataset dict to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances

from .images import read_rgb_image


class DetrDatasetMapper:
    """Decodes, augments and packs one sample (a Detectron2 dataset mapper).

    Output: file_name, image_id, height and width (of the file) as they came; image, (3, H, W) uint8 RGB tensor after
    augmentation; in training also instances, with gt_boxes (Boxes, XYXY pixels of the augmented image, clipped to it)
    and gt_classes (int64). Crowd regions and boxes that a crop left without area are not among them. LVIS's
    neg_category_ids and not_exhaustive_category_ids are passed on.

    Args:
        augmentations: Detectron2 augmentations, or a list of them as ``detr_train_augmentation`` gives it.
        is_train: whether to produce instances.
        min_box_size: boxes with a smaller side (pixels, after augmentation) are left out.
    """

    def __init__(self, *, augmentations: Sequence[T.Augmentation], is_train: bool, min_box_size: float = 1e-5) -> None:
        self.augmentations = T.AugmentationList(list(augmentations))
        self.is_train = is_train
        self.min_box_size = min_box_size

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Maps one dataset dict, which is left as it is.

        Raises:
            UnusableImageError: the image file is missing, corrupt or of another size than the record says.
        """
        image = read_rgb_image(record["file_name"], height=record["height"], width=record["width"])
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        height, width = aug_input.image.shape[:2]
        sample = {key: value for key, value in record.items() if key != "annotations"}
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        sample["image"] = torch.from_numpy(pixels)
        if self.is_train:
            sample["instances"] = self._instances(record["annotations"], transforms, height, width)
        return sample

    def _instances(
        self, annotations: Sequence[dict[str, Any]], transforms: T.TransformList, height: int, width: int
    ) -> Instances:
        kept = [a for a in annotations if not a.get("iscrowd", 0)]
        boxes = np.array(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in kept], dtype=np.float64
        ).reshape(-1, 4)
        if len(boxes):
            boxes = transforms.apply_box(boxes).reshape(-1, 4)
        boxes = np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))
        sides = boxes[:, 2:] - boxes[:, :2]
        visible = (sides > self.min_box_size).all(axis=1)
        classes = np.array([a["category_id"] for a in kept], dtype=np.int64)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes[visible].astype(np.float32)))
        instances.gt_classes = torch.from_numpy(classes[visible])
        return instances

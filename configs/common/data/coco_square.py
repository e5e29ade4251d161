"""COCO squashed to 640 x 640 with RT-DETR's augmentation and a random size a step."""

from ..augmentation import multi_scale, square_test, square_train
from .coco import dataloader, dataset

dataset.short_side = 640  # of both sides
dataloader.train.mapper.augmentations = square_train
dataloader.train.batch_transforms = [multi_scale]
dataloader.test.mapper.augmentations = square_test

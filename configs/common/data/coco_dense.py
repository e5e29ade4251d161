"""COCO with DEIM's dense one-to-one data; needs a flat-cosine schedule, whose epochs it follows."""

from ..augmentation import dense_multi_scale, dense_train, mix_up, mosaic, square_test
from .coco_square import dataloader, dataset

dataloader.train.mapper.augmentations = dense_train
dataloader.train.mapper.mosaic = mosaic
dataloader.train.batch_transforms = [mix_up, dense_multi_scale]

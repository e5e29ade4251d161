"""Datasets in COCO or LVIS json, the generated dataset, augmentation and loaders."""

from hdetr_d2.annotations import (
    ClassFrequencies,
    DatasetError,
    DatasetInfo,
    UnusableImageError,
    class_frequencies,
    declared_groups,
    frequency_group,
    read_annotation_file,
    read_dataset_info,
    resolve_path,
)
from hdetr_d2.images import read_rgb_image

from .augmentation import RandomChoice, detr_test_augmentation, detr_train_augmentation
from .balanced_sampling import ClassBalancedSampling, RepeatFactorSampling, repeat_factors
from .batch_transforms import BatchTransform, MixUp, MultiScale
from .context import ContextMapper, SampleContext, StepContext
from .datasets import get_dataset, load_dataset_dicts, register_dataset, resolve_dataset
from .generated import ensure_generated
from .loader import TrainLoader, build_test_loader, build_train_loader
from .mapper import DetrDatasetMapper
from .mosaic import Mosaic
from .sampling import EpochSampling, SampleStream, ShuffledSampling
from .strong_augmentation import (
    DropSmallBoxes,
    During,
    OverlapCrop,
    PhotometricDistortion,
    ZoomOut,
    square_test_augmentation,
    square_train_augmentation,
)

__all__ = [
    "BatchTransform",
    "ClassBalancedSampling",
    "ClassFrequencies",
    "ContextMapper",
    "DatasetError",
    "DatasetInfo",
    "DetrDatasetMapper",
    "DropSmallBoxes",
    "During",
    "EpochSampling",
    "MixUp",
    "Mosaic",
    "MultiScale",
    "OverlapCrop",
    "PhotometricDistortion",
    "RandomChoice",
    "RepeatFactorSampling",
    "SampleContext",
    "SampleStream",
    "ShuffledSampling",
    "StepContext",
    "TrainLoader",
    "UnusableImageError",
    "ZoomOut",
    "build_test_loader",
    "build_train_loader",
    "class_frequencies",
    "declared_groups",
    "detr_test_augmentation",
    "detr_train_augmentation",
    "ensure_generated",
    "frequency_group",
    "get_dataset",
    "load_dataset_dicts",
    "read_annotation_file",
    "read_dataset_info",
    "read_rgb_image",
    "register_dataset",
    "repeat_factors",
    "resolve_dataset",
    "resolve_path",
    "square_test_augmentation",
    "square_train_augmentation",
]

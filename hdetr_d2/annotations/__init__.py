"""Annotation files in COCO and LVIS format: one typed reader and one set of checks, for training and evaluation."""

from hdetr_d2.images import irregular

from .boxes import pairwise_iou, xywh_to_xyxy, xyxy_to_xywh
from .checks import CheckedAnnotations, annotation_faults, check_annotations, require_invalid
from .counts import largest_object_count, read_dataset_info
from .errors import DatasetError, GroundTruthError, UnusableImageError
from .files import read_bytes, resolve_path, shown
from .frequency import FREQUENCIES, ClassFrequencies, class_frequencies, declared_groups, frequency_group
from .objects import wrong_size
from .reading import parse_annotations, read_annotation_file, read_annotations, without_cycle_collection
from .table import AnnotationFile, Categories, DatasetInfo

__all__ = [
    "FREQUENCIES",
    "AnnotationFile",
    "Categories",
    "CheckedAnnotations",
    "ClassFrequencies",
    "DatasetError",
    "DatasetInfo",
    "GroundTruthError",
    "UnusableImageError",
    "annotation_faults",
    "check_annotations",
    "class_frequencies",
    "declared_groups",
    "frequency_group",
    "irregular",
    "largest_object_count",
    "pairwise_iou",
    "parse_annotations",
    "read_annotation_file",
    "read_annotations",
    "read_bytes",
    "read_dataset_info",
    "require_invalid",
    "resolve_path",
    "shown",
    "without_cycle_collection",
    "wrong_size",
    "xywh_to_xyxy",
    "xyxy_to_xywh",
]

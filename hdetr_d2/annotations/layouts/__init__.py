"""Datasets in the layouts that people have: COCO or LVIS json, YOLO, Pascal VOC, and exports of labelling tools."""

from .convert import CocoSplit, PreparedDataset, prepare_dataset, write_with_image_folder
from .layout import LAYOUTS, Layout, LayoutError, LayoutName, RawSplit, UnknownLayoutError
from .recognition import recognise

__all__ = [
    "LAYOUTS",
    "CocoSplit",
    "Layout",
    "LayoutError",
    "LayoutName",
    "PreparedDataset",
    "RawSplit",
    "UnknownLayoutError",
    "prepare_dataset",
    "recognise",
    "write_with_image_folder",
]

"""Counts of a file that are worth a look before training."""

from __future__ import annotations

import os

import numpy as np

from .checks import check_annotations
from .frequency import class_frequencies
from .reading import read_annotation_file
from .table import DatasetInfo


def read_dataset_info(json_file: str | os.PathLike[str]) -> DatasetInfo:
    """Counts and class names of a COCO- or LVIS-format json.

    Args:
        json_file: see `resolve_path`.

    Raises:
        DatasetError: the file is not there or not in the format.
    """
    table = read_annotation_file(json_file)
    frequencies = class_frequencies(table)
    return DatasetInfo(
        num_images=len(table.image_ids),
        num_annotations=len(table.annotation_ids),
        num_classes=len(table.categories.ids),
        names=table.categories.names,
        category_ids=table.categories.ids,
        image_counts=frequencies.image_counts,
        frequencies=frequencies.groups,
    )


def largest_object_count(json_file: str | os.PathLike[str], *, invalid: str = "error") -> tuple[int, str]:
    """The most objects to learn in one image: a model with fewer queries cannot find them all.

    Args:
        json_file: the training file; see `resolve_path`. Read already where a loader was built, so that this is quick.
        invalid: ``dataset.invalid``; what it drops does not count, nor do crowds and ignored objects.

    Returns:
        The count, 0 in a file without objects, and the file name of the first image that has so many.

    Raises:
        DatasetError: the file cannot be used.
    """
    table = read_annotation_file(json_file)
    checked = check_annotations(table, invalid=invalid)
    learnt = ~(table.annotation_crowd | table.annotation_ignored)[checked.rows]
    counts = np.bincount(checked.image_rows[learnt], minlength=len(table.image_ids))
    row = int(counts.argmax())
    names = table.image_names[row]
    return int(counts[row]), names[0] if names else f"image {table.image_ids[row]}"

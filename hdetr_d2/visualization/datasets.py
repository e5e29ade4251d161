"""A sheet of a dataset's images with their annotations, and results beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from hdetr_d2.annotations import DatasetError, read_annotation_file
from hdetr_d2.data import load_dataset_dicts

from .pictures import comparison_sheet, load_predictions

Path = str | os.PathLike[str]


def dataset_sheet(
    annotations: Path,
    images: Path,
    *,
    results: Path | None = None,
    num_images: int = 8,
    image_ids: Sequence[int] = (),
    seed: int = 0,
    score_threshold: float = 0.3,
    columns: int = 2,
    long_side: int = 480,
) -> Image.Image:
    """Draw images of a dataset. Faulty annotations are left out and counted: looking is a way to find out about them.

    Args:
        annotations: a file in COCO's or LVIS's format.
        images: the folder of its images.
        results: detections in COCO's results format, drawn beside the annotations.
        num_images: how many, chosen at random.
        image_ids: these instead, in this order.
        seed: of the choice.
        score_threshold: lowest score that is drawn.
        columns: images in a row.
        long_side: of an image, in pixels.

    Raises:
        UserError: a file is wrong, or an id is not in it.
    """
    records = load_dataset_dicts(json_file=annotations, image_root=images, invalid="drop", check_files="exists")
    table = read_annotation_file(annotations)
    predictions = None
    if results is not None:
        contiguous = {identity: index for index, identity in enumerate(table.categories.ids)}
        predictions = load_predictions(results, contiguous, image_ids=table.image_ids.tolist())
    return comparison_sheet(
        _chosen(records, image_ids, num_images, seed, table.path),
        names=table.categories.names,
        predictions=predictions,
        score_threshold=score_threshold,
        columns=columns,
        long_side=long_side,
    )


def _chosen(
    records: list[dict[str, Any]], image_ids: Sequence[int], count: int, seed: int, where: str
) -> list[dict[str, Any]]:
    """The asked images in the asked order, or a random choice in the order of the file."""
    if image_ids:
        by_id = {record["image_id"]: record for record in records}
        unknown = [identity for identity in image_ids if identity not in by_id]
        if unknown:
            raise DatasetError(f"{where}: has no images with the ids {unknown}")
        return [by_id[identity] for identity in image_ids]
    rows = np.random.default_rng(seed).choice(len(records), size=min(count, len(records)), replace=False)
    return [records[row] for row in sorted(rows)]

"""Validation images with what is there and what was found."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdetr_d2.annotations.layouts import CocoSplit
from hdetr_d2.data import load_dataset_dicts, read_rgb_image
from hdetr_d2.evaluation import Detections, GroundTruth
from hdetr_d2.evaluation.longtail.matches import judge
from hdetr_d2.visualization import DrawnBox, draw_boxes, truth_boxes

MOST = 8
_LONG_SIDE = 640


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image, twice.

    Args:
        name: of the file.
        caption: how many objects and errors it has.
        truth: with the annotations, as an address that holds the picture.
        found: with the detections.
    """

    name: str
    caption: str
    truth: str
    found: str


def choose_pictures(split: CocoSplit, truth: GroundTruth, shown: Detections, *, most: int = MOST) -> list[Picture]:
    """Half of them those with the most errors, the others from all over the rest.

    Args:
        split: the files.
        truth: their annotations.
        shown: detections above their thresholds.
        most: how many.
    """
    judged = judge(truth, shown, style="coco")
    wrong = _count(truth.image_ids, judged.detections.image_ids[~judged.correct])
    right = _count(truth.image_ids, judged.detections.image_ids[judged.correct])
    real = ~(truth.annotations.crowd | truth.annotations.ignored)
    objects = _count(truth.image_ids, truth.annotations.image_ids[real])
    errors = wrong + objects - right
    order = np.argsort(-errors, kind="stable")
    half = min(len(order), most // 2 if len(order) > most else most)
    rest = order[half:]
    spread = rest[np.linspace(0, len(rest) - 1, min(most - half, len(rest))).round().astype(int)]
    chosen = [*order[:half].tolist(), *np.unique(spread).tolist()]
    records = {
        record["image_id"]: record
        for record in load_dataset_dicts(
            json_file=split.json, image_root=split.images, invalid="drop", training=False, check_files="none"
        )
    }
    names = list(truth.category_names.values())
    pictures = []
    for index in chosen:
        record = records.get(int(truth.image_ids[index]))
        if record is None:
            continue
        image = Image.fromarray(read_rgb_image(record["file_name"], height=record["height"], width=record["width"]))
        there, found, false = int(objects[index]), int(right[index]), int(wrong[index])
        pictures.append(
            Picture(
                name=os.path.basename(record["file_name"]),
                caption=f"objects: {there}, found {found}, missed {there - found}; wrong detections: {false}",
                truth=_encoded(draw_boxes(image, truth_boxes(record, names), long_side=_LONG_SIDE)),
                found=_encoded(
                    draw_boxes(image, _boxes(shown, truth, names, record["image_id"]), long_side=_LONG_SIDE)
                ),
            )
        )
    return pictures


def _count(image_ids: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each image occurs."""
    order = np.argsort(image_ids)
    found = order[np.searchsorted(image_ids[order], of)]
    return np.bincount(found, minlength=len(image_ids))


def _boxes(shown: Detections, truth: GroundTruth, names: Sequence[str], image_id: int) -> list[DrawnBox]:
    rows = np.flatnonzero(shown.image_ids == image_id)
    ids = truth.category_ids
    boxes = []
    for row in rows.tolist():
        x, y, w, h = shown.boxes[row].tolist()
        index = int(np.searchsorted(ids, shown.category_ids[row]))
        boxes.append(DrawnBox((x, y, x + w, y + h), index, f"{names[index]} {shown.scores[row]:.2f}"))
    return boxes


def _encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


__all__ = ["MOST", "Picture", "choose_pictures"]

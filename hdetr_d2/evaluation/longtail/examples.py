"""Pictures of classes: one image each, with its objects and what the runs found."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdetr_d2.annotations import pairwise_iou
from hdetr_d2.data import read_rgb_image

from ..detections import Detections
from ..ground_truth import GroundTruth
from .figures import ClassFigures, LongTailFigures
from .matches import IOU

_LONG_SIDE = 320  # pixels of a thumbnail
_QUALITY = 70  # of its JPEG: 10 to 15 kB
_MOST_BOXES = 4  # of a run in a thumbnail, and as many other names


@dataclass(frozen=True)
class FoundBox:
    """A detection: XYWH in pixels of the thumbnail, score, whether it is right, what it is called if not the class."""

    box: tuple[float, float, float, float]
    score: float
    correct: bool
    other_class: str | None = None


@dataclass(frozen=True)
class Example:
    """An image that shows a class.

    Args:
        category_id: the class.
        width, height: of the thumbnail, in pixels.
        jpeg: base64; None where there is no image file.
        objects: XYWH in pixels of the thumbnail.
        found: of every run the best detections of the class, and for objects without one what they were called.
    """

    category_id: int
    width: int
    height: int
    jpeg: str | None
    objects: tuple[tuple[float, ...], ...]
    found: tuple[tuple[FoundBox, ...], ...]


def make_example(
    class_figures: ClassFigures,
    runs: Sequence[LongTailFigures],
    truth: GroundTruth,
    *,
    image_files: Mapping[int, str],
    image_sizes: Mapping[int, tuple[int, int]],
    best: bool,
) -> Example:
    """Choose an image for a class and draw up what is in it.

    Args:
        class_figures: the class; it has objects.
        runs: the first one decides which image it is.
        truth: what they were evaluated against.
        image_files: by image id.
        image_sizes: (height, width) by image id.
        best: show what is found rather than what is missed.
    """
    category = class_figures.category_id
    image = _choose_image(category, runs[0], truth, best=best)
    height, width = image_sizes[image]
    scale = _LONG_SIDE / max(height, width)
    here = (truth.annotations.image_ids == image) & (truth.annotations.category_ids == category)
    objects = truth.annotations.boxes[here]
    found = tuple(_found(category, image, objects, run, truth, scale) for run in runs)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Example(
        category_id=category,
        width=size[0],
        height=size[1],
        jpeg=thumbnail(image_files[image], size) if image in image_files else None,
        objects=tuple(_scaled(box, scale) for box in objects),
        found=found,
    )


def _choose_image(category: int, run: LongTailFigures, truth: GroundTruth, *, best: bool) -> int:
    """The image of most objects of the class that are found, or missed; of equal ones the first."""
    images, objects = np.unique(
        truth.annotations.image_ids[truth.annotations.category_ids == category], return_counts=True
    )
    detections = run.judged.detections
    right = detections.image_ids[(detections.category_ids == category) & run.judged.correct]
    hits = np.array([(right == image).sum() for image in images])
    return int(images[np.argmax(hits if best else objects - hits)])


def _found(
    category: int,
    image: int,
    objects: NDArray[np.float64],
    run: LongTailFigures,
    truth: GroundTruth,
    scale: float,
) -> tuple[FoundBox, ...]:
    """The best detections of the class in the image, as many as it has objects or a few more, then other names."""
    judged = run.judged.detections
    rows = np.flatnonzero((judged.image_ids == image) & (judged.category_ids == category))
    rows = rows[np.argsort(-judged.scores[rows], kind="stable")][: min(_MOST_BOXES, len(objects) + 1)]
    boxes = [
        FoundBox(_scaled(judged.boxes[row], scale), float(judged.scores[row]), bool(run.judged.correct[row]))
        for row in rows
    ]
    in_image = run.detections.select(run.detections.image_ids == image)
    taken = judged.boxes[rows[run.judged.correct[rows]]]
    missed = objects[(pairwise_iou(objects, taken) < IOU).all(axis=1)]
    boxes += [_other_name(box, in_image, truth, scale) for box in missed if _overlapping(box, in_image).any()]
    return tuple(boxes[: 2 * _MOST_BOXES])


def _overlapping(box: NDArray[np.float64], detections: Detections) -> NDArray[np.bool_]:
    return pairwise_iou(box[None], detections.boxes)[0] >= IOU


def _other_name(box: NDArray[np.float64], detections: Detections, truth: GroundTruth, scale: float) -> FoundBox:
    """What an object was called."""
    row = int(np.argmax(np.where(_overlapping(box, detections), detections.scores, -np.inf)))
    name = truth.category_names[int(detections.category_ids[row])]
    return FoundBox(_scaled(detections.boxes[row], scale), float(detections.scores[row]), False, name)


def _scaled(box: NDArray[np.float64], scale: float) -> tuple[float, float, float, float]:
    x, y, width, height = (round(float(number) * scale, 1) for number in box)
    return x, y, width, height


def thumbnail(path: str, size: tuple[int, int], part: tuple[float, float, float, float] | None = None) -> str:
    """JPEG in base64.

    Args:
        path: of the image.
        size: width and height of the result.
        part: of the image, XYXY in pixels; None is all of it.

    Raises:
        UnusableImageError: the file cannot be read.
    """
    image = Image.fromarray(read_rgb_image(path)).resize(size, Image.Resampling.BICUBIC, box=part)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()

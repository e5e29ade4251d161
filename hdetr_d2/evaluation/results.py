"""Detections in COCO's result format: reading, checking, and making them from a model's output."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .ground_truth import GroundTruth

Result = dict[
    str, Any
]  # {"image_id": int, "category_id": int, "bbox": [x, y, width, height] in pixels, "score": float}


class ResultsError(ValueError):
    """Detections cannot be evaluated; the message names the file, the detection and what is wrong with it."""


def load_results(results: str | os.PathLike[str] | Sequence[Result], truth: GroundTruth) -> list[Result]:
    """Read and check detections.

    Args:
        results: a JSON file that holds a list of result dicts, or that list.
        truth: what they are to be compared with.

    Raises:
        ResultsError: see :func:`validate_results`.
        OSError: the file cannot be read.
    """
    source = "the results"
    detections: Any = results
    if isinstance(results, (str, os.PathLike)):
        source = os.fspath(results)
        with open(source, encoding="utf-8") as file:
            try:
                detections = json.load(file)
            except json.JSONDecodeError as error:
                raise ResultsError(f"{source} is not JSON: {error}") from None
    if isinstance(detections, (str, os.PathLike)) or not isinstance(detections, Sequence):
        raise ResultsError(f"{source} is not a list of detections but a {type(detections).__name__}")
    validate_results(detections, truth, source=source)
    return list(detections)


def validate_results(results: Sequence[Result], truth: GroundTruth, *, source: str = "the results") -> None:
    """Check that every detection can be compared with the annotations.

    Args:
        results: result dicts.
        truth: the annotations.
        source: what messages call the results.

    Raises:
        ResultsError: a detection is malformed, is of an unknown image or category, has a score or a coordinate that is
            not a finite number, or a negative width or height.
    """
    images = set(truth.image_ids)
    if _all_valid(results, images, truth):
        return
    for index, result in enumerate(results):
        problem = _problem(result, images, truth)
        if problem:
            raise ResultsError(f"{source}: detection {index}{_where(result)} {problem}")


def _all_valid(results: Sequence[Result], images: set[int], truth: GroundTruth) -> bool:
    """Whether all detections are fine, without saying what is wrong otherwise; ten times as fast as one by one."""
    try:
        boxes = np.array([result["bbox"] for result in results]).reshape(len(results), 4)
        scores = np.array([result["score"] for result in results])
        known = {result["image_id"] for result in results} <= images
        known = known and {result["category_id"] for result in results} <= truth.category_names.keys()
    except (KeyError, TypeError, ValueError):
        return False
    if not known or boxes.dtype.kind not in "iuf" or scores.dtype.kind not in "iuf" or scores.ndim != 1:
        return False
    return bool(np.isfinite(boxes).all() and np.isfinite(scores).all() and (boxes[:, 2:] >= 0).all())


def _where(result: Any) -> str:
    return f" (image {result['image_id']!r})" if isinstance(result, Mapping) and "image_id" in result else ""


def _problem(result: Any, images: set[int], truth: GroundTruth) -> str | None:
    """What is wrong with one detection, or None."""
    if not isinstance(result, Mapping):
        return f"is not a dict but a {type(result).__name__}"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in result]
    if missing:
        return f"has no {' and no '.join(missing)}"
    if result["image_id"] not in images:
        return f"is of an image that {truth.source} does not have"
    if result["category_id"] not in truth.category_names:
        return f"is of category {result['category_id']!r}, which {truth.source} does not have"
    if not _is_finite(result["score"]):
        return f"has score {result['score']!r}"
    box = result["bbox"]
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_finite, box)):
        return f"has bbox {box!r} instead of four finite numbers"
    if box[2] < 0 or box[3] < 0:
        return f"has bbox {box!r} with a negative width or height (the format is [x, y, width, height])"
    return None


def _is_finite(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)

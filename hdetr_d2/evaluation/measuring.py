"""The metrics of detections that are there already, with everything that a user may choose about them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hdetr_d2.annotations import read_annotation_file, read_dataset_info
from hdetr_d2.output import writing

from .backends import require_backend, require_limit
from .coco import evaluate_coco
from .detections import Result
from .errors import EvaluationError
from .ground_truth import load_ground_truth
from .lvis import evaluate_lvis, require_lists
from .metrics import Metrics

Style = Literal["auto", "coco", "lvis"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is asked for.

    Args:
        style: whose metrics; "auto" is LVIS's where the annotations say which classes were looked for.
        max_dets: how many detections of an image count: in COCO's metrics of each class (100), in LVIS's of all (300).
        backend: which program compares; see `evaluate_boxes`.
        fixed: LVIS: also AP-fixed; see `evaluate_lvis`.
        train: LVIS: the file whose classes are counted where the annotations do not say how frequent they are.
        invalid: "error" refuses faulty annotations, "drop" leaves them out as training does.
    """

    style: Style = "auto"
    max_dets: int | None = None
    backend: str = "auto"
    fixed: bool = False
    train: str | os.PathLike[str] | None = None
    invalid: Literal["error", "drop"] = "error"


Results = str | os.PathLike[str] | Sequence[Result]
Measure = Callable[[Results], Mapping[str, Metrics]]
"""Compares a file of detections in COCO's results format, or what one contains, with annotations."""


def measure(annotations: str | os.PathLike[str], results: Results, wanted: Measurement) -> Mapping[str, Metrics]:
    """Compare detections with annotations.

    Args:
        annotations: a file in COCO's or LVIS's format.
        results: a file of detections in COCO's results format, or what one contains.
        wanted: which metrics.

    Returns:
        Metrics in percent by task, as `evaluate_coco` and `evaluate_lvis` give them.

    Raises:
        UserError: a file is wrong, or options do not go together.
    """
    return prepare(annotations, wanted)(results)


def prepare(annotations: str | os.PathLike[str], wanted: Measurement) -> Measure:
    """Read everything that detections will be compared with: what is wrong with it is told before there are any.

    Args:
        annotations: a file in COCO's or LVIS's format.
        wanted: which metrics.

    Raises:
        UserError: the file is wrong, or options do not go together.
    """
    style = style_of(annotations, wanted)
    truth = load_ground_truth(annotations, invalid=wanted.invalid)
    if style == "coco":
        max_dets = 100 if wanted.max_dets is None else wanted.max_dets
        return partial(evaluate_coco, truth, max_dets=max_dets, backend=wanted.backend)
    require_lists(truth)
    frequencies = None
    if wanted.train is not None:
        info = read_dataset_info(wanted.train)
        frequencies = dict(zip(info.category_ids, info.frequencies, strict=True))
    max_dets = 300 if wanted.max_dets is None else wanted.max_dets
    return partial(
        evaluate_lvis,
        truth,
        max_dets=max_dets,
        fixed=wanted.fixed,
        frequencies=frequencies,
        backend=wanted.backend,
    )


def style_of(annotations: str | os.PathLike[str], wanted: Measurement) -> Literal["coco", "lvis"]:
    """Whose metrics they will be. What is wrong with the options is told here, before there are any detections.

    Raises:
        EvaluationError: an option cannot be, or is for the metrics of the other.
        DatasetError: the file cannot be read.
    """
    style = wanted.style
    if style == "auto":
        style = "lvis" if read_annotation_file(annotations).image_negative is not None else "coco"
    if style == "coco":
        asked = {
            "--fixed": wanted.fixed,
            "--train": wanted.train is not None,
            "--backend lvis": wanted.backend == "lvis",
        }
        for option in (name for name, is_asked in asked.items() if is_asked):
            raise EvaluationError(
                f"{option} is for --style lvis, and {os.fspath(annotations)} is measured as COCO does"
            )
    require_backend(wanted.backend, lvis=style == "lvis")
    if wanted.max_dets is not None:
        require_limit(wanted.max_dets)
    return style


def write_metrics(path: Path, metrics: Mapping[str, Metrics]) -> None:
    """Write metrics as json, in percent; what belongs to no object is null.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        task: {name: None if math.isnan(value) else value for name, value in values.items()}
        for task, values in metrics.items()
    }
    with writing(path) as target:
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

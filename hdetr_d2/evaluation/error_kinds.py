"""What a model does wrong: errors by kind (TIDE, Bolya et al., ECCV 2020) and what it takes for what, by hotcoco."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backends import hotcoco_evaluation
from .detections import Detections
from .ground_truth import GroundTruth

KINDS: Mapping[str, str] = {
    "Miss": "missed",
    "Cls": "wrong class",
    "Loc": "badly placed",
    "Both": "wrong class and badly placed",
    "Dupe": "duplicate",
    "Bkg": "background",
}
"""TIDE's names, and ours."""


@dataclass(frozen=True, kw_only=True)
class ErrorKinds:
    """The errors of some detections.

    Args:
        counts: of each of `KINDS`, by our names, among the detections that are shown.
        ap_lost: what AP50 would gain, in percent, if no detection at all had errors of the kind.
        confusion: (K + 1, K + 1) int64, among the detections that are shown: rows are the class of the object, columns
            that of the detection, in the order of category ids; the last row is background that was detected, the last
            column objects that were not.
        class_names: of the K classes.
        calibration_error: mean distance of score and share of right detections (ECE), all detections; NaN without any.
    """

    counts: dict[str, int]
    ap_lost: dict[str, float]
    confusion: NDArray[np.int64]
    class_names: tuple[str, ...]
    calibration_error: float


def error_kinds(truth: GroundTruth, detections: Detections, shown: Detections, *, lvis: bool = False) -> ErrorKinds:
    """Sort the errors of a model.

    Args:
        truth: the annotations.
        detections: all of the model's.
        shown: those above its thresholds.
        lvis: a detection without a match is no error where the truth lists its category as not exhaustive.
    """
    whole = hotcoco_evaluation(truth, detections, lvis=lvis)
    lost = whole.tide_errors()["delta_ap"]
    calibration = whole.calibration()
    chosen = hotcoco_evaluation(truth, shown, lvis=lvis)
    counts = chosen.tide_errors()["counts"]
    return ErrorKinds(
        counts={name: int(counts[key]) for key, name in KINDS.items()},
        ap_lost={name: 100 * float(lost[key]) for key, name in KINDS.items()},
        confusion=np.asarray(chosen.confusion_matrix()["matrix"]).astype(np.int64),
        class_names=tuple(truth.category_names.values()),
        calibration_error=float(calibration["ece"]) if calibration["num_detections"] else math.nan,
    )

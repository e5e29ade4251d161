"""From precision and recall to the numbers that COCO and LVIS report, in percent."""

import logging
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .backends import AREA_LABELS, BoxEvaluation
from .ground_truth import FREQUENCIES, GroundTruth
from .tables import metrics_table, per_class_table

PER_CLASS = "AP-"
_MOST_CLASSES_LOGGED = 300

logger = logging.getLogger(__name__)

Metrics = OrderedDict[str, float]
"""Percent by name; NaN where nothing is annotated."""


def summarize(evaluation: BoxEvaluation, truth: GroundTruth, *, groups: bool = False) -> Metrics:
    """The averages over what there is to detect, and the AP of every class.

    Args:
        evaluation: against ``truth``.
        truth: for the names of the classes, and their frequencies.
        groups: also APr, APc and APf, the AP of rare, common and frequent classes.
    """
    # AP of each threshold, class and area (T, K, A), with the highest limit; of a class either all or no values are -1
    precision, recall = evaluation.precision[..., -1].mean(axis=1), evaluation.recall[..., -1]
    metrics = Metrics(AP=_percent(precision[:, :, 0]), AP50=_percent(precision[0, :, 0]))
    metrics["AP75"] = _percent(precision[5, :, 0])
    for area, label in enumerate(AREA_LABELS[1:], start=1):
        metrics[f"AP{label[0]}"] = _percent(precision[:, :, area])
    if groups:
        frequencies = truth.frequencies or {}
        of_class = np.array([frequencies.get(category, "") for category in evaluation.category_ids.tolist()])
        for group in FREQUENCIES:
            metrics[f"AP{group}"] = _percent(precision[:, of_class == group, 0])
    for index, limit in enumerate(evaluation.max_dets):
        metrics[f"AR{limit}"] = _percent(evaluation.recall[:, :, 0, index])
    for area, label in enumerate(AREA_LABELS[1:], start=1):
        metrics[f"AR{label[0]}"] = _percent(recall[:, :, area])
    row_of = {category: row for row, category in enumerate(evaluation.category_ids.tolist())}
    for category, name in truth.category_names.items():
        ap = _percent(precision[:, row_of[category], 0]) if category in row_of else float("nan")
        metrics[PER_CLASS + name] = ap
    return metrics


def _percent(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return 100 * float(valid.mean()) if valid.size else float("nan")


def split_classes(metrics: Mapping[str, float]) -> tuple[Metrics, Metrics]:
    """The averages, and the AP by class name."""
    overall = Metrics((name, value) for name, value in metrics.items() if not name.startswith(PER_CLASS))
    classes = Metrics(
        (name.removeprefix(PER_CLASS), value) for name, value in metrics.items() if name.startswith(PER_CLASS)
    )
    return overall, classes


def log_metrics(results: Mapping[str, Mapping[str, float]]) -> None:
    """Log metrics as tables: of each task the averages, and where they are not too many, the AP of every class."""
    for task, metrics in results.items():
        overall, classes = split_classes(metrics)
        logger.info("%s metrics (%%):\n%s", task, metrics_table(overall))
        if len(classes) <= _MOST_CLASSES_LOGGED:
            logger.info("%s AP (%%) of every class:\n%s", task, per_class_table(classes))

"""COCO's box metrics, and the evaluator that computes them for a model."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from hdetr_d2.registry import EVALUATOR_REGISTRY

from .backends import BoxEvaluation, evaluate_boxes, require_backend, require_limit
from .detections import Detections, Result
from .evaluator import BoxEvaluator
from .ground_truth import GroundTruth, load_ground_truth
from .metrics import Metrics, summarize
from .results import load_results

RESULTS_FILE = "coco_instances_results.json"  # as Detectron2 calls it


def evaluate_coco(
    ground_truth: str | os.PathLike[str] | Mapping[str, Any] | GroundTruth,
    results: str | os.PathLike[str] | Sequence[Result] | Detections,
    *,
    max_dets: int = 100,
    backend: str = "auto",
) -> "OrderedDict[str, Metrics]":
    """COCO's metrics of box detections.

    Args:
        ground_truth: annotation file in COCO format, its contents, or what :func:`load_ground_truth` returns.
        results: result file, list of result dicts, or detections in columns; may be empty. All images of the
            annotations count.
        max_dets: how many detections of an image count, per category; COCO uses 100.
        backend: see :func:`evaluate_boxes`.

    Returns:
        {"bbox": metrics}, in percent: AP, AP50, AP75, APs, APm, APl as Detectron2 calls them, AR1 and AR10 (below
        ``max_dets``), AR{max_dets}, ARs, ARm, ARl, and "AP-<class>" for every class. NaN where nothing is annotated.

    Raises:
        GroundTruthError, ResultsError: the input is wrong.
        EvaluationError: ``max_dets`` or ``backend`` is.
    """
    limits = _limits(max_dets)
    require_backend(backend)
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else load_ground_truth(ground_truth)
    detections = load_results(results, truth)
    evaluation = evaluate_boxes(truth, detections, max_dets=limits, backend=backend)
    return OrderedDict(bbox=summarize(evaluation, truth))


def _limits(max_dets: int) -> list[int]:
    """COCO's limits 1 and 10 as far as they are below the one that all metrics but AR1 and AR10 are of."""
    max_dets = require_limit(max_dets)
    return [limit for limit in (1, 10) if limit < max_dets] + [max_dets]


@EVALUATOR_REGISTRY.register()
class COCOEvaluator(BoxEvaluator):
    """COCO's box metrics of a model on a registered dataset (see :func:`evaluate_coco` for what they are called).

    Args:
        dataset_name, output_dir, backend: see :class:`BoxEvaluator`; the file is ``coco_instances_results.json``.
        max_dets_per_image: how many detections of an image count, per category; COCO uses 100.
    """

    results_file = RESULTS_FILE

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        max_dets_per_image: int = 100,
        backend: str = "auto",
    ) -> None:
        require_backend(backend)
        super().__init__(dataset_name, output_dir=output_dir, backend=backend)
        self.max_dets_per_image = require_limit(max_dets_per_image)

    def metrics(self, truth: GroundTruth, detections: Detections) -> "OrderedDict[str, Metrics]":
        """Those of :func:`evaluate_coco`."""
        return evaluate_coco(truth, detections, max_dets=self.max_dets_per_image, backend=self.backend)

    def metric_names(self, truth: GroundTruth) -> tuple[str, ...]:
        """Those of :func:`evaluate_coco`."""
        return tuple(
            f"bbox/{name}" for name in summarize(BoxEvaluation.of_nothing(_limits(self.max_dets_per_image)), truth)
        )

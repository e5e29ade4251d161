"""LVIS's box metrics, and the evaluator that computes them for a model.

LVIS is annotated in part: of an image it is known which classes are there, which are not (negative), and of which not
all objects are annotated (not exhaustive). Detections of any other class are left out, and those of a class that is
not exhaustive count only where they match (Gupta, Dollar, Girshick, LVIS, CVPR 2019).
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from numpy.typing import NDArray

from hdetr_d2.registry import EVALUATOR_REGISTRY

from .backends import BoxEvaluation, evaluate_boxes, require_backend, require_limit
from .detections import Detections, Result, best_of_each
from .evaluator import BoxEvaluator
from .ground_truth import FREQUENCIES, GroundTruth, GroundTruthError, load_ground_truth
from .metrics import Metrics, summarize
from .results import load_results

RESULTS_FILE = "lvis_instances_results.json"  # as Detectron2 calls it
MAX_DETS_PER_CLASS = 10_000  # of AP-fixed

logger = logging.getLogger(__name__)


def evaluate_lvis(
    gt_json: str | os.PathLike[str] | Mapping[str, Any] | GroundTruth,
    results: str | os.PathLike[str] | Sequence[Result] | Detections,
    max_dets: int = 300,
    *,
    fixed: bool = False,
    frequencies: Mapping[int, str] | None = None,
    backend: str = "auto",
) -> "OrderedDict[str, Metrics]":
    """LVIS's metrics of box detections, the numbers of the official program lvis 0.5.3.

    Args:
        gt_json: annotation file in LVIS format, its contents, or what :func:`load_ground_truth` returns.
        results: result file, list of result dicts, or detections in columns; may be empty. All images of the
            annotations count.
        max_dets: how many detections of an image count, the best of all classes together; LVIS uses 300.
        fixed: also the metrics without that limit, of the 10,000 best detections of each class in all images, which do
            not let one class's detections push out another's (Dave et al., Evaluating Large-Vocabulary Object
            Detectors, 2021).
        frequencies: "r", "c" or "f" by category id, for a file that does not have them.
        backend: see :func:`evaluate_boxes`.

    Returns:
        {"bbox": metrics} and with ``fixed`` {"bbox_fixed": metrics}, in percent: AP, AP50, AP75, APs, APm, APl, APr,
        APc, APf, AR{limit}, ARs, ARm, ARl, and "AP-<class>" for every class. NaN where nothing is annotated.

    Raises:
        GroundTruthError, ResultsError: the input is wrong.
        EvaluationError: ``max_dets`` or ``backend`` is.
    """
    max_dets = require_limit(max_dets)
    require_backend(backend, lvis=True)
    truth = gt_json if isinstance(gt_json, GroundTruth) else load_ground_truth(gt_json)
    truth = prepare_truth(truth, frequencies=frequencies)
    detections = load_results(results, truth)
    chosen = {"bbox": (best_of_each(detections.image_ids, detections.scores, max_dets), max_dets)}
    if fixed:
        best = best_of_each(detections.category_ids, detections.scores, MAX_DETS_PER_CLASS)
        chosen["bbox_fixed"] = (best, MAX_DETS_PER_CLASS)
    judged = of_annotated_classes(detections, truth)
    parts = {task: detections.select(rows & judged) for task, (rows, _) in chosen.items()}
    del detections, judged  # of 20,000 images 350 MB
    metrics: OrderedDict[str, Metrics] = OrderedDict()
    for task, (_, limit) in chosen.items():
        # What counts is chosen already, so the backend's own limit is one that no image reaches.
        unlimited = [max(1, len(parts[task]))]
        evaluation = evaluate_boxes(truth, parts.pop(task), max_dets=unlimited, backend=backend, lvis=True)
        metrics[task] = summarize(replace(evaluation, max_dets=(limit,)), truth, groups=True)
    return metrics


def prepare_truth(truth: GroundTruth, *, frequencies: Mapping[int, str] | None = None) -> GroundTruth:
    """What of an annotation file counts in LVIS: annotations with an area.

    Args:
        truth: the file.
        frequencies: where the file has none.

    Raises:
        GroundTruthError: the file lacks LVIS's lists of classes.
    """
    require_lists(truth)
    if truth.frequencies is None and frequencies is not None:
        unknown = sorted(set(frequencies.values()) - set(FREQUENCIES))
        if unknown:
            raise GroundTruthError(f"a class is given the frequency {unknown[0]!r}; there are r, c and f")
        truth = replace(truth, frequencies=dict(frequencies))
    if truth.frequencies is None:
        logger.warning(
            '%s does not say "frequency": r, c or f of every category: there is no APr, APc and APf.', truth.source
        )
    return replace(truth, annotations=truth.annotations.select(truth.annotations.areas > 0))


def require_lists(truth: GroundTruth) -> None:
    """Refuse what is not in LVIS's format.

    Raises:
        GroundTruthError: an image lacks one of LVIS's lists of classes.
    """
    for key, pairs in (
        ("neg_category_ids", truth.negative),
        ("not_exhaustive_category_ids", truth.not_exhaustive),
    ):
        which = "no image has a list" if pairs is None else f"image {truth.without_lists.get(key)} has no list"
        if len(truth.image_ids) and (pairs is None or key in truth.without_lists):
            raise GroundTruthError(
                f'{truth.source} is not in LVIS format: {which} "{key}", so it is not known which detections are '
                "wrong; evaluate it as COCO, or give every image that list"
            )


def limit_per_image(detections: Detections, limit: int) -> Detections:
    """The best detections of every image, of all classes together; of equal scores the first."""
    return detections.select(best_of_each(detections.image_ids, detections.scores, limit))


def of_annotated_classes(detections: Detections, truth: GroundTruth) -> NDArray[np.bool_]:
    """Which detections count: their class is annotated in their image or known to be absent, and they have an area.

    Args:
        detections: of N boxes.
        truth: from :func:`prepare_truth`.

    Returns:
        (N,) mask.
    """
    images, categories = np.sort(truth.image_ids), truth.category_ids

    def pair(image_ids: NDArray[np.int64], category_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(images, image_ids) * len(categories) + np.searchsorted(categories, category_ids)

    negative = truth.negative if truth.negative is not None else np.empty((0, 2), dtype=np.int64)
    negative = negative[np.isin(negative[:, 1], categories)]  # lists may name classes that the file does not have
    annotated = np.concatenate(
        [pair(truth.annotations.image_ids, truth.annotations.category_ids), pair(negative[:, 0], negative[:, 1])]
    )
    has_area = detections.boxes[:, 2] * detections.boxes[:, 3] > 0
    return np.isin(pair(detections.image_ids, detections.category_ids), annotated) & has_area


@EVALUATOR_REGISTRY.register()
class LVISEvaluator(BoxEvaluator):
    """LVIS's box metrics of a model on a registered dataset (see :func:`evaluate_lvis` for what they are called).

    Where the annotation file does not say how frequent the classes are, ``thing_frequencies`` of the dataset's
    metadata does.

    Args:
        dataset_name, output_dir, backend: see :class:`BoxEvaluator`; the file is ``lvis_instances_results.json``.
        max_dets_per_image: how many detections of an image count, of all classes together; LVIS uses 300.
        fixed: also the metrics of the 10,000 best detections of every class.
    """

    results_file = RESULTS_FILE

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        max_dets_per_image: int = 300,
        fixed: bool = False,
        backend: str = "auto",
    ) -> None:
        require_backend(backend, lvis=True)
        super().__init__(dataset_name, output_dir=output_dir, backend=backend)
        self.max_dets_per_image = require_limit(max_dets_per_image)
        self.fixed = fixed

    def metrics(self, truth: GroundTruth, detections: Detections) -> "OrderedDict[str, Metrics]":
        """Those of :func:`evaluate_lvis`."""
        return evaluate_lvis(
            truth,
            detections,
            self.max_dets_per_image,
            fixed=self.fixed,
            frequencies=self._frequencies(),
            backend=self.backend,
        )

    def _frequencies(self) -> dict[int, str] | None:
        classes = MetadataCatalog.get(self.dataset_name).get("thing_frequencies", None)
        mapping = self.metadata("thing_dataset_id_to_contiguous_id")
        return None if classes is None else {id_: classes[index] for id_, index in mapping.items()}

    def metric_names(self, truth: GroundTruth) -> tuple[str, ...]:
        """Those of :func:`evaluate_lvis`.

        Raises:
            GroundTruthError: the file lacks LVIS's lists of classes.
        """
        truth = prepare_truth(truth, frequencies=self._frequencies())
        limits = {"bbox": self.max_dets_per_image} | ({"bbox_fixed": MAX_DETS_PER_CLASS} if self.fixed else {})
        return tuple(
            f"{task}/{name}"
            for task, limit in limits.items()
            for name in summarize(BoxEvaluation.of_nothing([limit]), truth, groups=True)
        )

"""COCO's box metrics, and the evaluator that computes them for a model."""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from numpy.typing import NDArray

from ..registry import EVALUATOR_REGISTRY
from .backends import AREA_LABELS, BoxEvaluation, evaluate_boxes
from .ground_truth import GroundTruth, load_ground_truth
from .results import Result, ResultsError, load_results
from .tables import metrics_table, per_class_table

RESULTS_FILE = "coco_instances_results.json"  # as Detectron2 calls it
_PER_CLASS = "AP-"

logger = logging.getLogger(__name__)


def evaluate_coco(
    ground_truth: str | os.PathLike[str] | Mapping[str, Any] | GroundTruth,
    results: str | os.PathLike[str] | Sequence[Result],
    *,
    max_dets: int = 100,
    backend: str = "auto",
) -> "OrderedDict[str, OrderedDict[str, float]]":
    """COCO's metrics of box detections.

    Args:
        ground_truth: annotation file in COCO format, its contents, or what :func:`load_ground_truth` returns.
        results: result file or list of result dicts; may be empty. All images of the annotations count.
        max_dets: how many detections of an image count, per category; COCO uses 100.
        backend: see :func:`evaluate_boxes`.

    Returns:
        {"bbox": metrics}, in percent: AP, AP50, AP75, APs, APm, APl as Detectron2 calls them, AR1, AR10, AR{max_dets},
        ARs, ARm, ARl, and "AP-<class>" for every class. NaN where nothing is annotated.

    Raises:
        GroundTruthError, ResultsError: the input is wrong.
    """
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else load_ground_truth(ground_truth)
    checked = load_results(results, truth)
    limits = sorted({1, 10, max_dets})
    metrics = _summarize(evaluate_boxes(truth, checked, max_dets=limits, backend=backend), truth)
    return OrderedDict(bbox=metrics)


def _summarize(evaluation: BoxEvaluation, truth: GroundTruth) -> "OrderedDict[str, float]":
    """The numbers that COCO reports, in percent, the average over what there is to detect."""
    precision, recall = evaluation.precision[..., -1], evaluation.recall[..., -1]  # with the highest limit
    metrics = OrderedDict(
        AP=_percent(precision[:, :, :, 0]), AP50=_percent(precision[0, :, :, 0]), AP75=_percent(precision[5, :, :, 0])
    )
    for area, label in enumerate(AREA_LABELS[1:], start=1):
        metrics[f"AP{label[0]}"] = _percent(precision[:, :, :, area])
    for index, limit in enumerate(evaluation.max_dets):
        metrics[f"AR{limit}"] = _percent(evaluation.recall[:, :, 0, index])
    for area, label in enumerate(AREA_LABELS[1:], start=1):
        metrics[f"AR{label[0]}"] = _percent(recall[:, :, area])
    for index, name in enumerate(truth.category_names.values()):
        metrics[_PER_CLASS + name] = _percent(precision[:, :, index, 0])
    return metrics


def _percent(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return 100 * float(valid.mean()) if valid.size else float("nan")


def log_metrics(metrics: Mapping[str, float]) -> None:
    """Log the metrics of :func:`evaluate_coco` as two tables, the second with the AP of every class."""
    overall = {name: value for name, value in metrics.items() if not name.startswith(_PER_CLASS)}
    classes = {name.removeprefix(_PER_CLASS): value for name, value in metrics.items() if name not in overall}
    logger.info("Box metrics (%%):\n%s", metrics_table(overall))
    logger.info("Box AP (%%) of every class:\n%s", per_class_table(classes))


@dataclass(frozen=True)
class _Detections:
    """Detections of one image: boxes (N, 4) XYWH in pixels, scores (N,), category ids (N,) of the annotation file."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    categories: NDArray[np.int64]

    def results(self, image_id: int) -> list[Result]:
        columns = zip(self.categories.tolist(), self.boxes.tolist(), self.scores.tolist())
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in columns
        ]


@EVALUATOR_REGISTRY.register()
class COCOEvaluator(DatasetEvaluator):
    """COCO's box metrics of a model on a registered dataset (see :func:`evaluate_coco` for what they are called).

    It needs nothing that Detectron2 compiles. In a run of several processes every process evaluates its share of the
    images and the main process gets the metrics; an image that several of them got counts once. Where the model has not
    seen all images of the annotation file, the metrics are over those that it has, and a warning says so.

    Args:
        dataset_name: name in the catalogs, whose metadata must have ``json_file`` and
            ``thing_dataset_id_to_contiguous_id``.
        output_dir: folder for ``coco_instances_results.json``; None writes no file.
        max_dets_per_image: how many detections of an image count, per category; COCO uses 100.
        backend: see :func:`evaluate_boxes`.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        max_dets_per_image: int = 100,
        backend: str = "auto",
    ) -> None:
        self.dataset_name = dataset_name
        self.output_dir = output_dir
        self.max_dets_per_image = max_dets_per_image
        self.backend = backend
        self._detections: dict[int, _Detections] = {}
        self._category_ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def reset(self) -> None:
        """Forget all detections, and look up the dataset, which may have been registered after this was made."""
        self._detections = {}
        mapping = self._metadata("thing_dataset_id_to_contiguous_id")
        self._category_ids = np.array(sorted(mapping, key=mapping.__getitem__), dtype=np.int64)

    def _metadata(self, key: str) -> Any:
        value = MetadataCatalog.get(self.dataset_name).get(key, None)
        if value is None:
            raise ValueError(f"dataset '{self.dataset_name}' cannot be evaluated: its metadata has no {key}")
        return value

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take in the detections of a batch.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``: pred_boxes (XYXY, pixels of the original image), scores, pred_classes.

        Raises:
            ResultsError: a box or score is not finite, a box has negative size, or a class is out of range.
        """
        for image, output in zip(inputs, outputs):
            instances = output["instances"].to("cpu")
            self._detections[image["image_id"]] = self._convert(image["image_id"], instances)

    def _convert(self, image_id: int, instances: Instances) -> _Detections:
        boxes = instances.pred_boxes.tensor.detach().double().numpy().reshape(-1, 4)
        scores = instances.scores.detach().double().numpy()
        classes = instances.pred_classes.numpy()
        sizes = boxes[:, 2:] - boxes[:, :2]
        where = f"dataset '{self.dataset_name}', image {image_id}"
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ResultsError(f"{where}: the model's boxes or scores are not finite; has its training diverged?")
        if (sizes < 0).any():
            raise ResultsError(f"{where}: a predicted box has negative size {sizes.min()}")
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self._category_ids):
            wrong = classes.max() if classes.min() >= 0 else classes.min()
            raise ResultsError(
                f"{where}: predicted class {wrong}, but the dataset has {len(self._category_ids)} classes"
            )
        return _Detections(
            boxes=np.concatenate([boxes[:, :2], sizes], axis=1), scores=scores, categories=self._category_ids[classes]
        )

    def evaluate(self) -> "OrderedDict[str, OrderedDict[str, float]]":
        """Compare what was processed with the annotations.

        Returns:
            As :func:`evaluate_coco` in the main process; empty in the others.

        Raises:
            ResultsError: an image is not in the annotation file.
        """
        gathered = comm.gather(self._detections)
        if not comm.is_main_process():
            return OrderedDict()
        detections = {image_id: each for part in gathered for image_id, each in part.items()}
        results = [result for image_id, each in sorted(detections.items()) for result in each.results(image_id)]
        self._write(results)
        truth = load_ground_truth(self._metadata("json_file"))
        self._check_images(detections, truth)
        truth = truth.restricted_to(detections)
        metrics = evaluate_coco(truth, results, max_dets=self.max_dets_per_image, backend=self.backend)
        log_metrics(metrics["bbox"])
        return metrics

    def _check_images(self, detections: Mapping[int, _Detections], truth: GroundTruth) -> None:
        unknown = sorted(set(detections) - set(truth.image_ids))
        if unknown:
            raise ResultsError(f"image {unknown[0]} was evaluated, but {truth.source} does not have it")
        if len(detections) < len(truth.image_ids):
            logger.warning(
                "Only %d of the %d images of '%s' were evaluated: the metrics are over these.",
                len(detections),
                len(truth.image_ids),
                self.dataset_name,
            )
        if not any(each.scores.size for each in detections.values()):
            logger.warning("The model detected nothing in any image of '%s'.", self.dataset_name)

    def _write(self, results: list[Result]) -> None:
        if self.output_dir is None:
            return
        os.makedirs(self.output_dir, exist_ok=True)
        path = os.path.join(self.output_dir, RESULTS_FILE)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(results, file)
        logger.info("Wrote %d detections to %s", len(results), path)

"""What the evaluators of boxes have in common: from a model's outputs in one or several processes to metrics."""

import logging
import os
import tempfile
from abc import abstractmethod
from collections import OrderedDict
from typing import IO, Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from numpy.typing import NDArray

from .detections import Detections
from .errors import EvaluationError
from .ground_truth import GroundTruth, load_ground_truth
from .metrics import Metrics, log_metrics
from .results import ResultsError, write_results

_ROW = np.dtype([("category", "<i8"), ("box", "<f8", 4), ("score", "<f8")])

logger = logging.getLogger(__name__)


class _Store:
    """Detections of one process, image after image, on the disk until they are asked for.

    Args:
        folder: for the file, which has no name and vanishes with the process; None is the system's.
    """

    def __init__(self, folder: str | None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._images: list[tuple[int, int]] = []

    def add(self, image_id: int, boxes: NDArray[np.float64], scores: NDArray[Any], categories: NDArray[Any]) -> None:
        """Take in one image: boxes (N, 4) XYWH, scores (N,), category ids (N,)."""
        rows = np.empty(len(scores), dtype=_ROW)
        rows["category"], rows["box"], rows["score"] = categories, boxes, scores
        self._file.write(rows.tobytes())
        self._images.append((image_id, len(rows)))

    def read(self) -> tuple[NDArray[np.int64], bytes]:
        """(I, 2) image ids and how many detections each has, and the rows of all of them."""
        self._file.seek(0)
        return np.array(self._images, dtype=np.int64).reshape(-1, 2), self._file.read()

    def close(self) -> None:
        """Forget everything."""
        self._file.close()


def _join(parts: list[tuple[NDArray[np.int64], bytes]]) -> tuple[NDArray[np.int64], Detections]:
    """The images of all processes, ascending, and their detections; the last one counts of an image that came twice."""
    images = np.concatenate([images for images, _ in parts])
    rows = np.concatenate([np.frombuffer(data, dtype=_ROW) for _, data in parts])
    unique, last = np.unique(images[::-1, 0], return_index=True)
    kept = np.zeros(len(images), dtype=bool)
    kept[len(images) - 1 - last] = True
    image_of_row, counts = np.repeat(images[:, 0], images[:, 1]), np.repeat(kept, images[:, 1])
    image_of_row, rows = image_of_row[counts], rows[counts]
    order = np.argsort(image_of_row, kind="stable")
    rows = rows[order]
    detections = Detections(
        image_ids=image_of_row[order],
        category_ids=np.ascontiguousarray(rows["category"]),
        boxes=np.ascontiguousarray(rows["box"]),
        scores=np.ascontiguousarray(rows["score"]),
    )
    return unique, detections


class BoxEvaluator(DatasetEvaluator):
    """Metrics of a model's boxes on a registered dataset; subclasses say which.

    It needs nothing that Detectron2 compiles. In a run of several processes every process evaluates its share of the
    images and the main process gets the metrics; an image that several of them got counts once. Detections wait on the
    disk and are gathered as arrays. Where the model has not seen all images of the annotation file, the metrics are
    over those that it has, and a warning says so.

    Args:
        dataset_name: name in the catalogs, whose metadata must have ``json_file`` and
            ``thing_dataset_id_to_contiguous_id``.
        output_dir: folder for the file of results; None writes none.
        backend: see :func:`evaluate_boxes`.
    """

    results_file: str

    def __init__(self, dataset_name: str, *, output_dir: str | None = None, backend: str = "auto") -> None:
        self.dataset_name = dataset_name
        self.output_dir = output_dir
        self.backend = backend
        self._store: _Store | None = None
        self._truth: tuple[tuple[Any, ...], GroundTruth] | None = None
        self._category_ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    @abstractmethod
    def metrics(self, truth: GroundTruth, detections: Detections) -> "OrderedDict[str, Metrics]":
        """The metrics of all detections, by task; only the main process asks."""

    def metric_names(self, truth: GroundTruth) -> tuple[str, ...]:
        """Of all that `metrics` will report, "task/metric"; () where a subclass does not say.

        Raises:
            GroundTruthError: the annotations cannot be evaluated so.
        """
        return ()

    def prepare(self) -> tuple[str, ...]:
        """Read the annotations now, so that what is wrong with them is known before there is anything to evaluate.

        Returns:
            `metric_names`.

        Raises:
            GroundTruthError: they cannot be evaluated.
            EvaluationError: the dataset's metadata lacks something.
        """
        self._look_up()
        truth = self.ground_truth()
        if not (~truth.annotations.crowd & ~truth.annotations.ignored).any():
            logger.warning(
                "%s: no object to find in any of its %d images, so that every metric will be nan",
                truth.source,
                len(truth.image_ids),
            )
        return self.metric_names(truth)

    def ground_truth(self) -> GroundTruth:
        """The annotations, under the names that the dataset's classes have, without what its loader drops.

        The file is read once, by whoever comes first in this process.

        Raises:
            GroundTruthError: they cannot be evaluated.
        """
        metadata = MetadataCatalog.get(self.dataset_name)
        mapping, classes = self.metadata("thing_dataset_id_to_contiguous_id"), metadata.get("thing_classes", None) or ()
        named = [classes[index] for _, index in sorted(mapping.items()) if index < len(classes)]
        invalid = metadata.get("invalid", None)
        key = (self.metadata("json_file"), invalid, *named)
        if self._truth is None or self._truth[0] != key:
            truth = load_ground_truth(key[0], invalid=invalid or "error", amodal=invalid is None)
            self._truth = key, truth.named(named)
        return self._truth[1]

    def reset(self) -> None:
        """Forget all detections, and look up the dataset, which may have been registered after this was made."""
        if self._store is not None:
            self._store.close()
        if self.output_dir is not None:
            os.makedirs(self.output_dir, exist_ok=True)
        self._store = _Store(self.output_dir)
        self._look_up()

    def _look_up(self) -> None:
        mapping = self.metadata("thing_dataset_id_to_contiguous_id")
        self._category_ids = np.array(sorted(mapping, key=mapping.__getitem__), dtype=np.int64)

    def metadata(self, key: str) -> Any:
        """An entry of the dataset's metadata.

        Raises:
            EvaluationError: there is none.
        """
        value = MetadataCatalog.get(self.dataset_name).get(key, None)
        if value is None:
            raise EvaluationError(f"dataset '{self.dataset_name}' cannot be evaluated: its metadata has no {key}")
        return value

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take in the detections of a batch.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``: pred_boxes (XYXY, pixels of the original image), scores, pred_classes.

        Raises:
            ResultsError: a box or score is not finite, a box has negative size, or a class is out of range.
        """
        if self._store is None:
            self.reset()
        assert self._store is not None
        for image, output in zip(inputs, outputs):
            self._add(self._store, image["image_id"], output["instances"].to("cpu"))

    def _add(self, store: _Store, image_id: int, instances: Instances) -> None:
        boxes = instances.pred_boxes.tensor.detach().double().numpy().reshape(-1, 4)
        scores = instances.scores.detach().double().numpy()
        classes = instances.pred_classes.numpy()
        sizes = boxes[:, 2:] - boxes[:, :2]
        where = f"dataset '{self.dataset_name}', image {image_id}"
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ResultsError(
                f"{where}: the model's boxes or scores are not finite: its training has diverged; go back to a "
                "checkpoint from before, with a lower optimizer.lr or train.clip_grad"
            )
        if (sizes < 0).any():
            raise ResultsError(f"{where}: a predicted box has negative size {sizes.min()}")
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self._category_ids):
            wrong = classes.max() if classes.min() >= 0 else classes.min()
            raise ResultsError(
                f"{where}: predicted class {wrong}, but the dataset has {len(self._category_ids)} classes"
            )
        store.add(image_id, np.concatenate([boxes[:, :2], sizes], axis=1), scores, self._category_ids[classes])

    def evaluate(self) -> "OrderedDict[str, Metrics]":
        """Compare what was processed with the annotations.

        Returns:
            Metrics by task in the main process; empty in the others.

        Raises:
            ResultsError: an image is not in the annotation file.
        """
        if self._store is None:
            self.reset()
        assert self._store is not None
        gathered = comm.gather(self._store.read())
        if not comm.is_main_process():
            return OrderedDict()
        images, detections = _join(gathered)
        self._write(detections)
        truth = self.ground_truth()
        self._check_images(images, detections, truth)
        results = self.metrics(truth.restricted_to(images), detections)
        log_metrics(results)
        return results

    def _check_images(self, images: NDArray[np.int64], detections: Detections, truth: GroundTruth) -> None:
        unknown = images[~np.isin(images, truth.image_ids)]
        if unknown.size:
            raise ResultsError(f"image {unknown[0]} was evaluated, but {truth.source} does not have it")
        if len(images) < len(truth.image_ids):
            logger.warning(
                "Only %d of the %d images of '%s' were evaluated: the metrics are over these.",
                len(images),
                len(truth.image_ids),
                self.dataset_name,
            )
        if not len(detections):
            logger.warning("The model detected nothing in any image of '%s'.", self.dataset_name)

    def _write(self, detections: Detections) -> None:
        if self.output_dir is None:
            return
        path = os.path.join(self.output_dir, self.results_file)
        write_results(path, detections)
        logger.info("Wrote %d detections to %s", len(detections), path)

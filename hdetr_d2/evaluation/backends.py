"""The programs that compare detections with annotations, behind one function.

All of them compute the same numbers. hotcoco is 180 times as fast as pycocotools, which is COCO's own, and 100 times as
fast as lvis, which is LVIS's own; these two are the oracles of the tests.
"""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detections import Detections
from .errors import EvaluationError, MissingBackendError
from .ground_truth import GroundTruth

AREA_LABELS = ("all", "small", "medium", "large")  # the limits are 32 and 96 pixels squared

# What one call of a backend is given at most, in whole categories. It bounds memory: categories do not depend on each
# other, and the programs keep something for every detection, or for every pair of an image and a category.
_MAX_DETECTIONS = 500_000
_MAX_PAIRS = 2_000_000


@dataclass(frozen=True)
class BoxEvaluation:
    """Precision and recall, as COCO defines them; -1 where there are no annotations to detect.

    Args:
        category_ids: (K,) int64, ascending, the categories that have annotations; others have no precision.
        precision: (T, R, K, A, M): at T = 10 IoU thresholds (0.50 to 0.95), R = 101 recall levels, K categories,
            A = 4 area ranges (AREA_LABELS), M limits of detections per image and category.
        recall: (T, K, A, M), the highest that is reached.
        max_dets: the M limits, ascending.
    """

    category_ids: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    max_dets: tuple[int, ...]

    @classmethod
    def of_nothing(cls, max_dets: Sequence[int]) -> "BoxEvaluation":
        """Without any category."""
        areas, limits = len(AREA_LABELS), len(max_dets)
        return cls(
            category_ids=np.empty(0, dtype=np.int64),
            precision=np.empty((10, 101, 0, areas, limits)),
            recall=np.empty((10, 0, areas, limits)),
            max_dets=tuple(max_dets),
        )


def available_backends(*, lvis: bool = False) -> list[str]:
    """Names of the backends that are installed, the fastest first; with ``lvis`` those for LVIS's metrics."""
    names = [*BACKENDS, "lvis"] if lvis else list(BACKENDS)
    return [name for name in names if importlib.util.find_spec(name) is not None]


def require_backend(backend: str, *, lvis: bool = False) -> str:
    """The name of the backend that ``backend`` means.

    Raises:
        EvaluationError: there is none.
        MissingBackendError: it is not installed, or does not work with what is.
    """
    names = [*BACKENDS, "lvis"] if lvis else list(BACKENDS)
    if backend == "auto":
        backend = available_backends(lvis=lvis)[0]
    if backend not in names:
        raise EvaluationError(f"no evaluation backend '{backend}'; there is auto, {', '.join(names)}")
    if importlib.util.find_spec(backend) is None:
        raise MissingBackendError(f"the evaluation backend {backend} is not installed; use auto")
    if backend == "lvis" and not hasattr(np, "float"):
        raise MissingBackendError(
            "the last release of lvis, 0.5.3, does not work with NumPy 1.24 and later; use another backend, all of "
            "which give the same numbers"
        )
    return backend


def require_limit(limit: int) -> int:
    """A limit of detections that can be one.

    Raises:
        EvaluationError: it is not a positive integer.
    """
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or not 1 <= limit < 2**31:
        raise EvaluationError(f"the limit of detections (max_dets) must be a positive integer, not {limit!r}")
    return int(limit)


def evaluate_boxes(
    truth: GroundTruth, detections: Detections, *, max_dets: Sequence[int], backend: str = "auto", lvis: bool = False
) -> BoxEvaluation:
    """Compare boxes with annotations.

    Args:
        truth: the annotations.
        detections: checked against them (:func:`load_results`); may be empty.
        max_dets: limits of detections per image and category, ascending.
        backend: a key of BACKENDS, with ``lvis`` also "lvis", or "auto" for the fastest that is installed.
        lvis: a detection without a match is no error where the truth lists its category as not exhaustive in the
            image; crowds are objects as others. What LVIS leaves out is to be removed before (see lvis.py).

    Raises:
        EvaluationError: there is no such backend, or a limit is not positive.
        MissingBackendError: the backend is not installed.
    """
    backend = require_backend(backend, lvis=lvis)
    compare = _lvis if backend == "lvis" else BACKENDS[backend]
    annotated = np.unique(truth.annotations.category_ids)
    nothing = BoxEvaluation.of_nothing([require_limit(limit) for limit in max_dets])
    precision, recall = [nothing.precision], [nothing.recall]
    truth = truth.restricted_to_categories(annotated)
    detections = detections.select(np.isin(detections.category_ids, annotated))
    with contextlib.redirect_stdout(io.StringIO()):  # all of them print their progress
        for part in _category_parts(truth, detections):
            found = compare(_Problem(*_numbered(*part), max_dets=tuple(max_dets), lvis=lvis))
            precision.append(np.asarray(found["precision"], dtype=np.float64))
            recall.append(np.asarray(found["recall"], dtype=np.float64))
    return BoxEvaluation(
        category_ids=annotated,
        precision=precision[1] if len(precision) == 2 else np.concatenate(precision, axis=2),
        recall=recall[1] if len(recall) == 2 else np.concatenate(recall, axis=1),
        max_dets=tuple(max_dets),
    )


def _numbered(truth: GroundTruth, detections: Detections) -> tuple[GroundTruth, Detections]:
    """Both with images and categories numbered from 1 in the order of their ids, which the programs keep as floats.

    A float tells integers apart up to 2^53 only; ids of today's date and the time in microseconds are larger.
    """
    images, categories = np.sort(truth.image_ids), truth.category_ids

    def number(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(known, ids) + 1

    def pairs(some: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        if some is None:
            return None
        some = some[np.isin(some[:, 0], images) & np.isin(some[:, 1], categories)]
        return np.stack([number(some[:, 0], images), number(some[:, 1], categories)], axis=1)

    annotations = replace(
        truth.annotations,
        image_ids=number(truth.annotations.image_ids, images),
        category_ids=number(truth.annotations.category_ids, categories),
    )
    numbered = replace(
        truth,
        image_ids=np.arange(1, len(images) + 1),
        category_names=dict(enumerate(truth.category_names.values(), start=1)),
        annotations=annotations,
        negative=pairs(truth.negative),
        not_exhaustive=pairs(truth.not_exhaustive),
    )
    return numbered, replace(
        detections,
        image_ids=number(detections.image_ids, images),
        category_ids=number(detections.category_ids, categories),
    )


def _category_parts(truth: GroundTruth, detections: Detections) -> Iterator[tuple[GroundTruth, Detections]]:
    """Both, cut into groups of categories in the order of their ids."""
    ids = truth.category_ids
    if not len(ids):
        return
    if len(detections) <= _MAX_DETECTIONS and len(ids) * len(truth.image_ids) <= _MAX_PAIRS:
        yield truth, detections
        return
    position = np.searchsorted(ids, detections.category_ids)
    per_category = np.bincount(position, minlength=len(ids))
    most_categories = max(1, _MAX_PAIRS // max(1, len(truth.image_ids)))
    start = 0
    while start < len(ids):
        within = np.searchsorted(np.cumsum(per_category[start : start + most_categories]), _MAX_DETECTIONS, "right")
        stop = start + max(1, int(within))
        chosen = (position >= start) & (position < stop)
        yield truth.restricted_to_categories(ids[start:stop]), detections.select(chosen)
        start = stop


@dataclass(frozen=True)
class _Problem:
    """What a backend gets."""

    truth: GroundTruth
    detections: Detections
    max_dets: tuple[int, ...]
    lvis: bool

    def images(self) -> list[dict[str, Any]]:
        """In the order of their ids, as LVIS has them; COCO's programs look only at the ids."""
        if not self.lvis:
            return [{"id": image} for image in sorted(self.truth.image_ids.tolist())]
        images = {
            image: {"id": image, "neg_category_ids": [], "not_exhaustive_category_ids": []}
            for image in sorted(self.truth.image_ids.tolist())
        }
        for key, pairs in (
            ("neg_category_ids", self.truth.negative),
            ("not_exhaustive_category_ids", self.truth.not_exhaustive),
        ):
            for image, category in [] if pairs is None else pairs.tolist():
                images[image][key].append(category)
        return list(images.values())

    def categories(self) -> list[dict[str, Any]]:
        """With a frequency, which LVIS's programs demand and which nothing here reads from them."""
        return [{"id": id_, "name": name, "frequency": "f"} for id_, name in self.truth.category_names.items()]

    def crowd(self) -> NDArray[np.bool_]:
        """(M,)."""
        annotations = self.truth.annotations
        # COCO's programs leave out nothing but crowds: they overwrite "ignore" with "iscrowd"
        return np.zeros(len(annotations), dtype=bool) if self.lvis else annotations.crowd | annotations.ignored

    def areas(self) -> NDArray[np.float64]:
        """(M,); outside of every range, for programs that do not know ``ignore``: it has the same effect."""
        annotations = self.truth.annotations
        return np.where(annotations.ignored, -1.0, annotations.areas) if self.lvis else annotations.areas

    def dataset(self, *, with_ignore: bool = False) -> dict[str, Any]:
        """The annotation file, rebuilt."""
        annotations = self.truth.annotations
        columns = zip(
            annotations.image_ids.tolist(),
            annotations.category_ids.tolist(),
            annotations.boxes.tolist(),
            (annotations.areas if with_ignore else self.areas()).tolist(),
            self.crowd().tolist(),
            (annotations.ignored & with_ignore).tolist(),
        )
        # Numbered from 1: pycocotools takes a detection matched to annotation 0 for one that is not matched.
        return {
            "images": self.images(),
            "categories": self.categories(),
            "annotations": [
                {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area}
                | {"iscrowd": int(crowd), "ignore": int(ignore)}
                for number, (image, category, box, area, crowd, ignore) in enumerate(columns, start=1)
            ],
        }

    def detected(self) -> dict[str, Any]:
        """Detections as what ``loadRes`` of pycocotools makes of them, which cannot do it where there are none."""
        results = (result for part in self.detections.results() for result in part)
        annotations = [
            {"id": number, **result, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
            for number, result in enumerate(results, start=1)
        ]
        return {"images": self.images(), "categories": self.categories(), "annotations": annotations}

    def run(self, evaluation: Any) -> Any:
        """The arrays that an object with the interface of pycocotools' COCOeval computes."""
        evaluation.params.imgIds = sorted(self.truth.image_ids.tolist())
        evaluation.params.catIds = list(self.truth.category_names)
        evaluation.params.maxDets = list(self.max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval


def _hotcoco(problem: _Problem) -> Any:
    return problem.run(_hotcoco_object(problem))


def _hotcoco_object(problem: _Problem) -> Any:
    from hotcoco import COCO, COCOeval

    annotations, detections = problem.truth.annotations, problem.detections
    truth = COCO.from_arrays(
        problem.images(),
        problem.categories(),
        annotations.image_ids,
        annotations.category_ids,
        annotations.boxes,
        area=problem.areas(),
        iscrowd=problem.crowd(),
    )
    table = np.column_stack([detections.image_ids, detections.boxes, detections.scores, detections.category_ids])
    return COCOeval(truth, truth.load_res(table), "bbox", lvis_style=problem.lvis)


def hotcoco_evaluation(truth: GroundTruth, detections: Detections, *, lvis: bool = False) -> Any:
    """Hotcoco's ``COCOeval`` after an evaluation of all detections of every image, for what it knows besides metrics.

    Categories are numbered from 1 in the order of their ids.
    """
    _, most = np.unique(detections.image_ids, return_counts=True)
    limit = int(most.max()) if len(most) else 1
    problem = _Problem(*_numbered(truth, detections), max_dets=(limit,), lvis=lvis)
    evaluation = _hotcoco_object(problem)
    with contextlib.redirect_stdout(io.StringIO()):
        problem.run(evaluation)
    return evaluation


def _faster_coco_eval(problem: _Problem) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    truth, found = COCO(problem.dataset()), COCO(problem.detected())
    return problem.run(COCOeval_faster(truth, found, "bbox", lvis_style=problem.lvis))


def _pycocotools(problem: _Problem) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pairs = problem.truth.not_exhaustive if problem.lvis else None
    not_exhaustive = set() if pairs is None else set(map(tuple, pairs.tolist()))

    class FederatedCOCOeval(COCOeval):
        """Forgives detections without a match where not all objects of their category are annotated."""

        def evaluateImg(self, imgId: int, catId: int, aRng: list[float], maxDet: int) -> dict[str, Any] | None:
            result: dict[str, Any] | None = super().evaluateImg(imgId, catId, aRng, maxDet)
            if result is not None and (imgId, catId) in not_exhaustive:
                result["dtIgnore"] = np.logical_or(result["dtIgnore"], result["dtMatches"] == 0)
            return result

    both = []
    for content in (problem.dataset(), problem.detected()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        both.append(coco)
    return problem.run(FederatedCOCOeval(*both, "bbox"))


def _lvis(problem: _Problem) -> Any:
    from lvis import LVIS, LVISEval, LVISResults

    both = []
    for kind, content in ((LVIS, problem.dataset(with_ignore=True)), (LVISResults, problem.detected())):
        loaded = kind.__new__(kind)  # the constructors read files, and fail where there are no detections
        loaded.dataset = content
        loaded.logger = logging.getLogger("lvis")
        loaded._create_index()
        both.append(loaded)
    evaluation = LVISEval(*both, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return {"precision": evaluation.eval["precision"][..., None], "recall": evaluation.eval["recall"][..., None]}


# The fastest first. Each takes a problem and gives the arrays "precision" and "recall" of BoxEvaluation.
BACKENDS: dict[str, Callable[[_Problem], Any]] = {
    "hotcoco": _hotcoco,
    "faster_coco_eval": _faster_coco_eval,
    "pycocotools": _pycocotools,
}

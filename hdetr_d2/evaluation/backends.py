"""The programs that compare detections with annotations, behind one function.

All of them compute the same numbers. hotcoco and faster-coco-eval are about 180 and 11 times faster than pycocotools,
which is COCO's own and the oracle of the tests.
"""

import contextlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ground_truth import GroundTruth
from .results import Result

AREA_LABELS = ("all", "small", "medium", "large")  # the limits are 32 and 96 pixels squared


@dataclass(frozen=True)
class BoxEvaluation:
    """Precision and recall, as COCO defines them; -1 where there are no annotations to detect.

    Args:
        precision: (T, R, K, A, M): at T = 10 IoU thresholds (0.50 to 0.95), R = 101 recall levels, K categories in the
            order of their ids, A = 4 area ranges (AREA_LABELS), M limits of detections per image and category.
        recall: (T, K, A, M), the highest that is reached.
        max_dets: the M limits, ascending.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    max_dets: tuple[int, ...]


def available_backends() -> list[str]:
    """Names of the backends that are installed, the fastest first."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def evaluate_boxes(
    truth: GroundTruth, results: Sequence[Result], *, max_dets: Sequence[int], backend: str = "auto"
) -> BoxEvaluation:
    """Compare boxes with annotations.

    Args:
        truth: the annotations.
        results: valid result dicts (:func:`validate_results`); may be empty.
        max_dets: limits of detections per image and category, ascending.
        backend: a key of BACKENDS, or "auto" for the fastest that is installed.

    Raises:
        ValueError: there is no such backend.
        ImportError: the backend is not installed.
    """
    if backend == "auto":
        backend = available_backends()[0]
    if backend not in BACKENDS:
        raise ValueError(f"no evaluation backend '{backend}'; there is auto, {', '.join(BACKENDS)}")
    # Numbered from 1: pycocotools takes a detection matched to annotation 0 for one that is not matched.
    annotations = [{"id": number, **each} for number, each in enumerate(truth.annotations, start=1)]
    dataset = {
        "images": [{"id": image_id} for image_id in truth.image_ids],
        "categories": [{"id": category_id, "name": name} for category_id, name in truth.category_names.items()],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # all of them print their progress
        evaluation = BACKENDS[backend](dataset, results)
        evaluation.params.imgIds = sorted(truth.image_ids)
        evaluation.params.catIds = list(truth.category_names)
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return BoxEvaluation(
        precision=np.asarray(evaluation.eval["precision"], dtype=np.float64),
        recall=np.asarray(evaluation.eval["recall"], dtype=np.float64),
        max_dets=tuple(max_dets),
    )


def _hotcoco(dataset: dict[str, Any], results: Sequence[Result]) -> Any:
    from hotcoco import COCO, COCOeval

    table = np.empty((len(results), 7))  # rows are ten times as fast to make and to load as dicts
    table[:, 0] = [result["image_id"] for result in results]
    table[:, 1:5] = np.array([result["bbox"] for result in results]).reshape(-1, 4)
    table[:, 5] = [result["score"] for result in results]
    table[:, 6] = [result["category_id"] for result in results]
    truth = COCO(dataset)
    return COCOeval(truth, truth.load_res(table), "bbox")


def _faster_coco_eval(dataset: dict[str, Any], results: Sequence[Result]) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    return COCOeval_faster(COCO(dataset), COCO(_as_dataset(dataset, results)), "bbox")


def _pycocotools(dataset: dict[str, Any], results: Sequence[Result]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    both = []
    for content in (dataset, _as_dataset(dataset, results)):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        both.append(coco)
    return COCOeval(*both, "bbox")


def _as_dataset(dataset: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Detections as what ``loadRes`` of pycocotools makes of them, which cannot do it where there are none."""
    detections = [
        {
            "id": number,
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "bbox": list(map(float, result["bbox"])),
            "area": float(result["bbox"][2]) * float(result["bbox"][3]),
            "iscrowd": 0,
            "score": float(result["score"]),
        }
        for number, result in enumerate(results, start=1)
    ]
    return {**dataset, "annotations": detections}


# Each makes an object with the interface of pycocotools' COCOeval out of a dataset in COCO format and detections.
BACKENDS: dict[str, Callable[[dict[str, Any], Sequence[Result]], Any]] = {
    "hotcoco": _hotcoco,
    "faster_coco_eval": _faster_coco_eval,
    "pycocotools": _pycocotools,
}

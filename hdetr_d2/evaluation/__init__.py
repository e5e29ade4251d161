"""Evaluation of detections against COCO and LVIS annotations."""

from .backends import BACKENDS, BoxEvaluation, available_backends, evaluate_boxes
from .coco import COCOEvaluator, evaluate_coco
from .detections import Detections
from .errors import EvaluationError, MissingBackendError
from .ground_truth import GroundTruth, GroundTruthError, load_ground_truth
from .lvis import LVISEvaluator, evaluate_lvis
from .results import ResultsError, load_results, write_results

__all__ = [
    "BACKENDS",
    "BoxEvaluation",
    "COCOEvaluator",
    "Detections",
    "EvaluationError",
    "GroundTruth",
    "GroundTruthError",
    "LVISEvaluator",
    "MissingBackendError",
    "ResultsError",
    "available_backends",
    "evaluate_boxes",
    "evaluate_coco",
    "evaluate_lvis",
    "load_ground_truth",
    "load_results",
    "write_results",
]

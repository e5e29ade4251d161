"""Evaluation of detections against COCO annotations."""

from .backends import BACKENDS, BoxEvaluation, available_backends
from .coco import COCOEvaluator, evaluate_coco
from .ground_truth import GroundTruth, GroundTruthError, load_ground_truth
from .results import ResultsError, load_results, validate_results

__all__ = [
    "BACKENDS",
    "BoxEvaluation",
    "COCOEvaluator",
    "GroundTruth",
    "GroundTruthError",
    "ResultsError",
    "available_backends",
    "evaluate_coco",
    "load_ground_truth",
    "load_results",
    "validate_results",
]

"""Registries of the kinds of object that a config may choose by name.

Meta-architectures and backbones are in Detectron2's own registries; these are for what it has none for.
"""

from detectron2.utils.registry import Registry

MATCHER_REGISTRY = Registry("MATCHER")
MATCHER_REGISTRY.__doc__ = "Matchers: logits, boxes and targets of one image -> (query indices, target indices)."

SUPERVISION_REGISTRY = Registry("SUPERVISION")
SUPERVISION_REGISTRY.__doc__ = "Supervisions: which query groups training adds, and each layer's matcher and weight."

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = "Evaluators: `detectron2.evaluation.DatasetEvaluator` classes by name."

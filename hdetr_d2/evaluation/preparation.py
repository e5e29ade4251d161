"""An evaluation built and checked before training, so that what is wrong with it is said before the first step."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pydoc import locate
from typing import Any

from detectron2.config import instantiate
from detectron2.evaluation import DatasetEvaluator

from .errors import EvaluationError
from .evaluator import BoxEvaluator

__all__ = ["PreparedEvaluation", "prepare_evaluation"]


@dataclass(frozen=True)
class PreparedEvaluation:
    """What every evaluation of a run needs, built once.

    Args:
        loader: of the images to evaluate, each a list of samples.
        evaluator: has read its annotations; ``inference_on_dataset`` resets it.
        metric_names: "task/metric" of all that it will report, such as "bbox/AP"; None where the evaluator is of
            another package and does not say.
    """

    loader: Iterable[list[dict[str, Any]]]
    evaluator: DatasetEvaluator
    metric_names: tuple[str, ...] | None

    def require_metric(self, key: str, metric: str) -> None:
        """Refuse a metric that the evaluation does not report.

        Args:
            key: of the config, for the message, such as "train.best_metric".
            metric: "task/metric"; "ema/" before it, which is of the same evaluator, is left out.

        Raises:
            EvaluationError: there is no such metric.
        """
        if self.metric_names is None or metric.removeprefix("ema/") in self.metric_names:
            return
        overall = [name for name in self.metric_names if "/AP-" not in name]
        raise EvaluationError(
            f'{key}="{metric}" is no metric of this evaluation; there are {", ".join(overall)}, and bbox/AP-<class> of '
            "every class"
        )


def prepare_evaluation(dataloader: Mapping[str, Any]) -> PreparedEvaluation:
    """Build test loader and evaluator of a config and read the annotations, as every process does before training.

    Args:
        dataloader: the resolved node ``dataloader`` of a config, with ``test`` and ``evaluator``. The loader comes
            first, because it registers the dataset that the evaluator asks for.

    Returns:
        What the evaluations of the run are made of.

    Raises:
        EvaluationError: an option of ``dataloader.test`` or ``dataloader.evaluator`` does not exist or is wrong.
        DatasetError: the validation set is not there, or is refused.
    """
    for key in ("test", "evaluator"):
        _require_arguments(f"dataloader.{key}", dataloader.get(key))
    loader = instantiate(dataloader["test"])
    evaluator = instantiate(dataloader["evaluator"])
    names = evaluator.prepare() if isinstance(evaluator, BoxEvaluator) else None
    return PreparedEvaluation(loader=loader, evaluator=evaluator, metric_names=names)


def _require_arguments(key: str, node: Any) -> None:
    """Refuse a misspelt argument by name, where the target says what it takes."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise EvaluationError(f"{key} is no description of an object (it has no _target_), but {node!r}")
    target = node["_target_"]
    target = locate(target) if isinstance(target, str) else target
    if not callable(target):
        raise EvaluationError(f"{key}: there is no {node['_target_']}")
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for name in node:
        if name != "_target_" and name not in known:
            raise EvaluationError(
                f"{key}.{name} does not exist: {getattr(target, '__name__', target)} takes {', '.join(known)}"
            )

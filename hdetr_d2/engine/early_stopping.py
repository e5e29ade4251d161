"""Ending a training that has stopped getting better."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.engine import HookBase
from detectron2.utils import comm

from .hooks import Evaluate, SaveCheckpoints, WriteFinalWeights
from .records import Record, metric_value, read_evaluations

logger = logging.getLogger(__name__)


def has_stopped_improving(records: Sequence[Record], *, metric: str, patience: int, min_delta: float) -> bool:
    """Whether the last ``patience`` steps have brought nothing.

    Patience begins where the metric is above 0 first: a model that has found nothing yet is not at its best.

    Args:
        records: the evaluations so far, {"iteration": steps done, "results": ...}, in their order.
        metric: "task/metric", larger is better.
        patience: in steps.
        min_delta: what a value must be above the best one by, to be an improvement.
    """
    best, best_at = float("-inf"), 0
    for record in records:
        value = metric_value(record["results"], metric)
        if value > best + min_delta:
            best, best_at = value, record["iteration"]
    return best > 0 and records[-1]["iteration"] - best_at >= patience


class StopEarly(HookBase):
    """End the training after an evaluation, as if it had been planned to end there; its files are those of any end.

    What happens follows from the evaluations on disk, so that a resumed run does the same. Its hook must stand after
    that of the evaluation, and before all that act on the last step.

    Args:
        evaluation: whose metric decides.
        saver: of checkpoints.
        final: of the final weights.
        patience: in steps; see `has_stopped_improving`.
        min_delta: see there.
    """

    def __init__(
        self,
        *,
        evaluation: Evaluate,
        saver: SaveCheckpoints,
        final: WriteFinalWeights,
        patience: int,
        min_delta: float = 0.0,
    ) -> None:
        self.evaluation = evaluation
        self.saver = saver
        self.final = final
        self.patience = patience
        self.min_delta = min_delta

    def before_train(self) -> None:
        """Do what a kill may have prevented; a run that has ended early trains no further."""
        start = self.trainer.start_iter
        if start and not self.trainer.stopping and self._decide(start):
            self.final.write(start)
            self.trainer.max_iter = start

    def after_step(self) -> None:
        """End after this step, if its evaluation says so."""
        done = self.trainer.iter + 1
        if self.trainer.stopping or done == self.trainer.max_iter or not self.evaluation.is_due(done):
            return
        if self._decide(done):
            self.final.write(done)
            if self.saver.saved != done:
                self.saver.save(done)
            self.trainer.max_iter = done

    def _decide(self, done: int) -> bool:
        """The main process's decision, in every process."""
        decision: bool = comm.all_gather(self._is_due(done) if comm.is_main_process() else None)[0]
        if decision:
            logger.info(
                "%s has not risen for %d steps: training ends after %d of %d, as train.early_stopping says",
                self.evaluation.best_metric, self.patience, done, self.trainer.max_iter,
            )  # fmt: skip
        return decision

    def _is_due(self, done: int) -> bool:
        records = [record for record in read_evaluations(self.evaluation.path) if record["iteration"] <= done]
        if not records or records[-1]["iteration"] != done:
            return False
        metric = self.evaluation.best_metric
        return has_stopped_improving(records, metric=metric, patience=self.patience, min_delta=self.min_delta)

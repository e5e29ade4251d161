"""Keeping, evaluating and restarting the moving average of the weights while training."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..checkpoint.loading import SafeCheckpointer, load_checkpoint
from .distributed import unwrap
from .ema import ModelEMA
from .hooks import Evaluate
from .records import Results, metric_value, read_evaluations
from .settings import EMASettings, RestartSettings

logger = logging.getLogger(__name__)


def averaged(ema: ModelEMA | None, *, wanted: bool) -> AbstractContextManager[None]:
    """A context in which the model has the averaged weights, if they are ``wanted``."""
    return ema.applied() if ema is not None and wanted else nullcontext()


class UpdateEMA(HookBase):
    """Take every step into the average.

    A step that fp16 skipped counts too, as in the authors' code: the model is then what it was.
    """

    def __init__(self, *, ema: ModelEMA) -> None:
        self.ema = ema

    def after_step(self) -> None:
        self.ema.update()


class EvaluateEMA:
    """An evaluation of the model, of the average, or of both; results of the average stand under "ema".

    Args:
        evaluate: the model as it is; every process calls it, results on the main one.
        which: "both", "ema" or "model".
    """

    def __init__(self, *, evaluate: Any, ema: ModelEMA, which: str) -> None:
        self.evaluate = evaluate
        self.ema = ema
        self.which = which

    def __call__(self) -> Results:
        results: Results = {}
        if self.which != "ema":
            logger.info("evaluating the model's own weights")
            results.update(self.evaluate())
        if self.which != "model":
            logger.info("evaluating the moving average of the weights")
            with self.ema.applied():
                of_average = self.evaluate()
            if of_average:
                results["ema"] = of_average
        return results


@dataclass(frozen=True)
class _Plan:
    """What follows from the evaluations so far: keep this state, return to the kept one, the decay from now on."""

    keep: bool
    go_back: bool
    decay: float


class RestartFromBest(HookBase):
    """Return to the best state of the first stage; see `RestartSettings`.

    What happens follows from the evaluations on disk, so that a resumed run does the same. The state is kept as
    ``model_restart.pth``.

    Args:
        evaluation: the hook that evaluates, registered before this one.
        at: iteration of the first return.
    """

    def __init__(
        self,
        *,
        ema: ModelEMA,
        checkpointer: SafeCheckpointer,
        evaluation: Evaluate,
        settings: RestartSettings,
        at: int,
    ) -> None:
        self.ema = ema
        self.checkpointer = checkpointer
        self.evaluation = evaluation
        self.settings = settings
        self.at = at
        self.first_decay = ema.decay
        self.path = os.path.join(checkpointer.save_dir, "model_restart.pth")

    def before_train(self) -> None:
        """Do what a kill may have prevented."""
        if self.trainer.start_iter:
            self._act(self.trainer.start_iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.trainer.stopping:
            return  # the evaluation that decides may be missing; the resumed run acts first
        if done == self.at or self.evaluation.is_due(done):
            self._act(done)

    def _act(self, done: int) -> None:
        plan = comm.all_gather(self._plan(done) if comm.is_main_process() else None)[0]
        if plan.keep:
            self.checkpointer.save("model_restart", tag=False, iteration=done)
        if plan.go_back:
            comm.synchronize()  # the file is written
            self._go_back()
        self.ema.decay = plan.decay

    def _plan(self, done: int) -> _Plan:
        evaluations = [
            (record["iteration"], metric_value(record["results"], self.evaluation.best_metric))
            for record in read_evaluations(self.evaluation.path)
            if 0 < record["iteration"] <= done
        ]
        first = [value for iteration, value in evaluations if iteration <= self.at]
        measure: float | None = max(first, default=None)
        returns, worse = 0, False
        for _, value in evaluations[len(first) :]:
            worse = measure is not None and value <= measure
            returns += worse
            measure = None if worse else value
        is_new = bool(evaluations) and evaluations[-1][0] == done
        return _Plan(
            keep=is_new and done <= self.at and (len(first) == 1 or first[-1] > max(first[:-1])),
            go_back=done < self.trainer.max_iter and (done == self.at or (is_new and worse)),
            decay=self.first_decay if done < self.at else self._decay(returns),
        )

    def _decay(self, returns: int) -> float:
        return max(0.0, self.settings.decay - returns * self.settings.decay_step)

    def _go_back(self) -> None:
        """Weights, optimiser, gradient scaler and average of the kept state; iteration and random numbers go on."""
        state = load_checkpoint(self.path)
        trainer: Any = self.trainer
        unwrap(trainer.model).load_state_dict(state["model"])
        trainer.load_optimizer(state["trainer"])
        self.ema.load_state_dict(state["ema"])
        logger.info("back to the weights after %d steps", state["iteration"])


def ema_hooks(
    settings: EMASettings, *, ema: ModelEMA, checkpointer: SafeCheckpointer, evaluation: Evaluate, restart_iter: int
) -> tuple[list[HookBase], list[HookBase]]:
    """Hooks that come before checkpoints and evaluations, and those that come after."""
    before: list[HookBase] = [UpdateEMA(ema=ema)]
    if settings.restart is None:
        return before, []
    restart = RestartFromBest(
        ema=ema, checkpointer=checkpointer, evaluation=evaluation, settings=settings.restart, at=restart_iter
    )
    return before, [restart]

"""What happens between steps: learning rate, checkpoints, evaluation, the line in the log."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from hdetr_d2.seeding import get_random_state, preserved_random_state

from ..checkpoint.loading import SafeCheckpointer
from .records import (
    EVALUATIONS_FILE,
    Results,
    flatten_results,
    json_values,
    keep_records_until,
    metric_value,
    read_evaluations,
    write_records,
)
from .schedule import LearningRateSchedule
from .stopping import EvaluationStopped

logger = logging.getLogger(__name__)


class SetLearningRate(HookBase):
    """Multiply every group's own learning rate by the schedule's factor, before each step.

    Args:
        optimizer: its groups' ``lr`` at construction is the one that the factor multiplies.
        schedule: the factor at an iteration.
    """

    def __init__(self, *, optimizer: torch.optim.Optimizer, schedule: LearningRateSchedule) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.base = [float(group["lr"]) for group in optimizer.param_groups]

    def before_step(self) -> None:
        factor = self.schedule(self.trainer.iter)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor
        self.trainer.storage.put_scalar("lr", max(self.base) * factor, smoothing_hint=False)


class SaveCheckpoints(HookBase):
    """A checkpoint every ``period`` steps and at the end, of which the latest stay.

    Args:
        checkpointer: writes on the main process.
        period: in steps; 0 saves only at the end.
        max_to_keep: how many of this run's checkpoints stay on the disk.
        run: what a later ``--resume`` compares with its own config; plain values.
        before_save: called with the number of steps done, in every process, before each save.

    Attributes:
        saved: the steps done at the latest save; -1 before the first.
    """

    FILE = re.compile(r"^model_(\d{7,})\.pth$")

    def __init__(
        self,
        *,
        checkpointer: SafeCheckpointer,
        period: int,
        max_to_keep: int,
        run: Mapping[str, Any],
        before_save: Sequence[Callable[[int], None]] = (),
    ) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self.max_to_keep = max_to_keep
        self.run = dict(run)
        self.before_save = tuple(before_save)
        self.saved = -1
        self._written: list[str] = []

    def before_train(self) -> None:
        """Take over this run's earlier checkpoints."""
        # after a resume the run's earlier checkpoints count too; those of a longer former run do not belong to it
        folder = self.checkpointer.save_dir
        if not self.trainer.start_iter or not os.path.isdir(folder):
            return
        found = sorted((name for name in os.listdir(folder) if self.FILE.match(name)), key=self._steps)
        self._written = [os.path.join(folder, name) for name in found if self._steps(name) <= self.trainer.start_iter]

    def _steps(self, name: str) -> int:
        match = self.FILE.match(name)
        assert match
        return int(match.group(1))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if (self.period and done % self.period == 0) or done == self.trainer.max_iter:
            self.save(done)

    def save(self, done: int) -> None:
        """Write ``model_<done>.pth``, the state after ``done`` steps; every process must call this."""
        for call in self.before_save:
            call(done)
        path = self.checkpointer.save(
            f"model_{done:07d}",
            iteration=self.trainer.iter,
            random_states=comm.gather(get_random_state()),
            partial_losses=comm.gather(self.trainer.losses.state()),
            metrics_line=self._metrics_line(done),
            run=self.run,
        )
        self.saved = done
        if not path:
            return
        self._written = [*(old for old in self._written if old != path), path]
        while len(self._written) > self.max_to_keep:
            old = self._written.pop(0)
            if os.path.exists(old):
                os.remove(old)

    def _metrics_line(self, done: int) -> dict[str, float]:
        """What the line of this step in ``metrics.json`` will hold, should a kill prevent it; {} where none is due."""
        if not comm.is_main_process() or not self.trainer.losses.is_due(done, self.trainer.max_iter):
            return {}
        latest = self.trainer.storage.latest_with_smoothing_hint(MetricsWriter.WINDOW)
        line = {name: float(value) for name, (value, iteration) in latest.items() if iteration == self.trainer.iter}
        return {"iteration": self.trainer.iter, **line}


class WriteFinalWeights(HookBase):
    """``model_final.pth`` at the end: weights only, and never what ``--resume`` continues from.

    Args:
        checkpointer: writes on the main process.
        which: "ema" or "model", for the record.
        weights: a context in which the model has these weights.
    """

    FILE = "model_final"

    def __init__(
        self,
        *,
        checkpointer: SafeCheckpointer,
        which: str = "model",
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.checkpointer = checkpointer
        self.which = which
        self.weights = weights

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self.write(done)

    def write(self, done: int) -> None:
        """Write the weights after ``done`` steps."""
        with self.weights():
            self.checkpointer.save(self.FILE, tag=False, with_checkpointables=False, iteration=done, weights=self.which)


class Evaluate(HookBase):
    """Evaluate every ``period`` steps and at the end; keep every result, and the best weights.

    Results are appended to ``evaluations.json`` in the output folder, one line each, so that a run killed while it
    evaluates does so again when resumed, and one killed later does not.

    Args:
        evaluate: runs an evaluation; the same call on every process; results on the main one. None evaluates never.
        period: in steps; 0 evaluates only at the end.
        checkpointer: writes ``model_best.pth``: weights only, and never what ``--resume`` continues from.
        best_metric: "task/metric", larger is better.
        untrained: also evaluate before the first step.
        best_weights: a context in which the model has the weights that ``best_metric`` is of.
    """

    def __init__(
        self,
        *,
        evaluate: Callable[[], Results] | None,
        period: int,
        checkpointer: SafeCheckpointer,
        best_metric: str,
        untrained: bool = False,
        best_weights: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.evaluate = evaluate
        self.period = period
        self.checkpointer = checkpointer
        self.best_metric = best_metric
        self.untrained = untrained
        self.best_weights = best_weights
        self.path = os.path.join(checkpointer.save_dir, EVALUATIONS_FILE)
        self.latest: Results = {}

    def before_train(self) -> None:
        """Make up for an evaluation that a kill prevented, or evaluate the untrained model."""
        start = self.trainer.start_iter
        if comm.is_main_process():
            keep_records_until(self.path, start if start else -1)
        comm.synchronize()
        due = self.is_due(start) if start else self.untrained and self.evaluate is not None
        records = read_evaluations(self.path)
        done_before = any(record["iteration"] == start for record in records)
        if due and not all(comm.all_gather(done_before)):
            self._run(start)
        elif records:
            self.latest = records[-1]["results"]

    def results_of_latest(self) -> Results:
        """Those of the latest record on the disk; {} except on the main process, and where there is none."""
        records = read_evaluations(self.path) if comm.is_main_process() else []
        return records[-1]["results"] if records else {}

    def is_due(self, done: int) -> bool:
        """Whether there is an evaluation after ``done`` steps."""
        if self.evaluate is None:
            return False
        return bool(self.period and done % self.period == 0) or done == self.trainer.max_iter

    def after_step(self) -> None:
        """Evaluate where it is due, unless the run is to stop: the resumed run then does it first."""
        if self.is_due(self.trainer.iter + 1) and not self.trainer.stopping:
            self._run(self.trainer.iter + 1)

    def _run(self, done: int) -> None:
        assert self.evaluate is not None
        try:
            with preserved_random_state():
                results = self.evaluate()
        except EvaluationStopped:
            self.trainer.stopping = True
            return
        comm.synchronize()
        if not comm.is_main_process():
            return
        self.latest = results
        flat = flatten_results(results)
        self.trainer.storage.iter = max(done - 1, 0)  # before training, the resumed run's step is a later one
        self.trainer.storage.put_scalars(smoothing_hint=False, **flat)
        records = read_evaluations(self.path)
        best_before = max(
            (metric_value(record["results"], self.best_metric) for record in records), default=float("-inf")
        )
        if self.best_metric not in flat:
            logger.warning(
                'no metric "%s" for model_best.pth; there are: %s', self.best_metric, ", ".join(sorted(flat))
            )
        elif metric_value(results, self.best_metric) > best_before:
            logger.info("best %s so far: %.4f", self.best_metric, flat[self.best_metric])
            with self.best_weights():
                self.checkpointer.save(
                    "model_best", tag=False, with_checkpointables=False, iteration=done, metrics=flat
                )
        # last, so that an evaluation with a record is one whose weights were kept
        records.append({"iteration": done, "results": json_values(results)})
        write_records(self.path, records)


class ProgressPrinter(EventWriter):
    """One line a period: epoch, iteration, time left, losses, times, memory.

    Args:
        max_iter: of the run.
        iterations_per_epoch: to show the epoch.
    """

    def __init__(self, *, max_iter: int, iterations_per_epoch: int) -> None:
        self.max_iter = max_iter
        self.iterations_per_epoch = iterations_per_epoch

    def write(self) -> None:
        """Log the line of the latest step."""
        storage = get_event_storage()
        latest = {name: value for name, (value, _) in storage.latest().items()}
        done = storage.iter + 1
        if done > self.max_iter or "total_loss" not in latest:
            return  # after training, or before the first losses
        parts = [f"epoch {done / self.iterations_per_epoch:.2f}", f"iter {done}/{self.max_iter}"]
        if "time" in latest:
            seconds = storage.history("time").median(1000) * (self.max_iter - done)
            parts.append(f"eta {datetime.timedelta(seconds=int(seconds))}")
        losses = [name for name in latest if name.startswith("loss")]
        shown = ["total_loss", *(losses if len(losses) <= 12 else ()), "gradient_norm"]
        parts += [f"{name} {latest[name]:.4g}" for name in shown if name in latest]
        for name in ("time", "data_time"):
            if name in latest:
                parts.append(f"{name} {storage.history(name).avg(20):.3f}")
        parts.append(f"lr {latest['lr']:.3g}" if "lr" in latest else "")
        if torch.cuda.is_available():
            parts.append(f"max_mem {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("  ".join(part for part in parts if part))


class WriteEvents(HookBase):
    """Give the event storage to the writers every ``period`` steps and at the end (Detectron2's ``PeriodicWriter``).

    They are made when training begins, when the files that they go on with are in order. A training that ends early
    writes no more: the resumed one writes these lines, and they then hold the whole period.

    Args:
        make_writers: called with the first iteration.
        period: in steps.
    """

    def __init__(self, *, make_writers: Callable[[int], Sequence[EventWriter]], period: int) -> None:
        self.make_writers = make_writers
        self.period = period
        self._writers: list[EventWriter] = []

    def before_train(self) -> None:
        self._writers = list(self.make_writers(self.trainer.start_iter))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self._write()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()

    def after_train(self) -> None:
        """Write what other hooks added after the last step, and close."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._write()
        for writer in self._writers:
            with suppress(OSError):  # closing writes; a full disk has been told already, or is by the next write
                writer.close()


class MetricsWriter(EventWriter):
    """``metrics.json``: Detectron2's, with lines in the order of their iterations, going on where a run stopped.

    Args:
        path: of the file.
        start_iter: what belongs to earlier iterations is in the file.
    """

    WINDOW = 20
    """Steps over which values that vary, times for example, are smoothed by their median."""

    def __init__(self, path: str, *, start_iter: int = 0) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._last = start_iter - 1

    def write(self) -> None:
        """Write what is new, a line for each iteration that it belongs to, down to the disk."""
        lines: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self.WINDOW).items():
            if iteration > self._last:
                lines.setdefault(iteration, {"iteration": iteration})[name] = value
        for iteration in sorted(lines):
            self._file.write(json.dumps(lines[iteration], sort_keys=True) + "\n")
            self._last = iteration
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

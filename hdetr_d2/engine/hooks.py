"""What happens between steps: learning rate, checkpoints, evaluation, the line in the log."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from hdetr_d2.seeding import get_random_state, preserved_random_state

from ..checkpoint.loading import SafeCheckpointer, write_atomically
from .schedule import LearningRateSchedule

logger = logging.getLogger(__name__)

Results = dict[str, Any]
"""An evaluator's results: {task: {metric: value}}."""


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
    """

    FILE = re.compile(r"^model_(\d{7})\.pth$")

    def __init__(
        self, *, checkpointer: SafeCheckpointer, period: int, max_to_keep: int, run: Mapping[str, Any]
    ) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self.max_to_keep = max_to_keep
        self.run = dict(run)
        self._written: list[str] = []

    def before_train(self) -> None:
        """Take over this run's earlier checkpoints."""
        # after a resume the run's earlier checkpoints count too; those of a longer former run do not belong to it
        folder = self.checkpointer.save_dir
        if not self.trainer.start_iter or not os.path.isdir(folder):
            return
        found = sorted(name for name in os.listdir(folder) if self.FILE.match(name))
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
        random_states = comm.gather(get_random_state())
        path = self.checkpointer.save(
            f"model_{done:07d}", iteration=self.trainer.iter, random_states=random_states, run=self.run
        )
        if not path:
            return
        self._written = [*(old for old in self._written if old != path), path]
        while len(self._written) > self.max_to_keep:
            old = self._written.pop(0)
            if os.path.exists(old):
                os.remove(old)


class Evaluate(HookBase):
    """Evaluate every ``period`` steps and at the end; keep every result, and the best weights.

    Results are appended to ``evaluations.json`` in the output folder, one line each, so that a run killed while it
    evaluates does so again when resumed, and one killed later does not.

    Args:
        evaluate: runs an evaluation; the same call on every process; results on the main one.
        period: in steps; 0 evaluates only at the end.
        checkpointer: writes ``model_best.pth``: weights only, and never what ``--resume`` continues from.
        best_metric: "task/metric", larger is better.
        untrained: also evaluate before the first step.
        best_weights: a context in which the model has the weights that ``best_metric`` is of.
    """

    def __init__(
        self,
        *,
        evaluate: Callable[[], Results],
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
        self.path = os.path.join(checkpointer.save_dir, "evaluations.json")
        self.latest: Results = {}

    def before_train(self) -> None:
        """Make up for an evaluation that a kill prevented, or evaluate the untrained model."""
        start = self.trainer.start_iter
        if comm.is_main_process():
            keep_lines_until(self.path, start if start else -1)
        comm.synchronize()
        due = self.is_due(start) if start else self.untrained
        records = read_evaluations(self.path)
        done_before = any(record["iteration"] == start for record in records)
        if due and not all(comm.all_gather(done_before)):
            self._run(start)
        elif records:
            self.latest = records[-1]["results"]

    def is_due(self, done: int) -> bool:
        """Whether there is an evaluation after ``done`` steps."""
        return bool(self.period and done % self.period == 0) or done == self.trainer.max_iter

    def after_step(self) -> None:
        if self.is_due(self.trainer.iter + 1):
            self._run(self.trainer.iter + 1)

    def _run(self, done: int) -> None:
        with preserved_random_state():
            results = self.evaluate()
        comm.synchronize()
        if not comm.is_main_process():
            return
        self.latest = results
        flat = flatten_results(results)
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
        records.append({"iteration": done, "results": _json_values(results)})
        _write_lines(self.path, records)


def _json_values(value: Any) -> Any:
    """Numpy's numbers as Python's; NaN, the metric of what no object belongs to, as None, which json has."""
    if isinstance(value, Mapping):
        return {str(key): _json_values(inner) for key, inner in value.items()}
    if isinstance(value, (int, str)) or value is None:
        return value
    number = float(value)
    return None if number != number else number


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"bbox": {"AP": 1.0}} as {"bbox/AP": 1.0}; what is not a number is left out."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat.update(flatten_results(value, name))
        elif isinstance(value, (int, float)) or hasattr(value, "__float__"):
            flat[name] = float(value)
    return flat


def metric_value(results: Mapping[str, Any], metric: str) -> float:
    """ "task/metric" of an evaluation's results, -inf where there is none."""
    value = flatten_results(results).get(metric, float("-inf"))
    return value if value == value else float("-inf")  # NaN: a data set without objects of that kind


def read_evaluations(path: str) -> list[dict[str, Any]]:
    """The records {"iteration": steps done, "results": ...} in an ``evaluations.json``; none if there is no file."""
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def keep_lines_until(path: str, iteration: int) -> None:
    """Drop the lines of a file of json lines whose "iteration" is above ``iteration``, and a line cut short by a kill.

    A resumed run writes them again; without this the logs would hold both.
    """
    if not os.path.isfile(path):
        return
    records = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["iteration"] <= iteration:
                records.append(record)
    _write_lines(path, records)


def _write_lines(path: str, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
    write_atomically(path, lambda file: _write_text(file, text))


def _write_text(file: Any, text: str) -> None:
    file.write(text.encode())


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

"""Several configs trained with several seeds, and one table of them.

A file lists the rows of the table, each a config with overrides, and what all runs have in common:

    seeds: [1, 2, 3]
    metrics: [bbox/AP, bbox/AP50]
    overrides: [schedule.epochs=4]           # of every run
    rows:
      one-to-one: {config: quickstart/schemes/one_to_one.py}
      branch, K 3: {config: quickstart/schemes/hybrid_branch.py, overrides: [model.supervision.k=3]}

Every run is ``hdetr-d2 train`` in a process of its own with ``--resume``, in the folder OUTPUT/<row>/seed<seed>. Seeds
take turns, so that a table cut short compares all rows. Runs that are finished are not repeated and one that was
stopped goes on where it was; a folder with a run of another config or other overrides is refused. Cells are the mean
of the last evaluation over the seeds and its sample standard deviation; "ms a step" is the median of a run, evaluations
left out, "minutes" is all of it. Below stand the differences of the first metric between every two rows (`paired`).
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hdetr_d2.errors import UserError
from hdetr_d2.evaluation.bootstrap import ResampledAP, class_groups, drawn_weights
from hdetr_d2.evaluation.runs import read_run
from hdetr_d2.output import writing
from hdetr_d2.visualization import plot_panels, read_metrics

from .paired import DRAWINGS, Scores, differences_table
from .records import flatten_results, read_evaluations

PROGRAM: Sequence[str] = (sys.executable, "-m", "hdetr_d2.cli", "train")
"""What trains; it takes the config, ``--resume`` and overrides."""

STEP = "ms a step"


class CompareError(UserError, ValueError):
    """A comparison cannot be made; the message names the file, key or folder."""


class TrainingFailed(Exception):
    """A training ended with an error; the message names the file with what it wrote."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        name: in its first column.
        config: a file, or the name of a packaged one.
        overrides: of all its runs, the common ones included.
    """

    name: str
    config: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a file asks for."""

    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a row with a seed, in its folder."""

    row: Row
    seed: int
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """What tells this run from others, in its record: those of ``train_net.py``."""
        return ["--config-file", self.row.config, "--resume", *self._settings]

    @property
    def _settings(self) -> list[str]:
        return [*self.row.overrides, f"train.seed={self.seed}", f"train.output_dir={self.folder}"]

    def results(self) -> dict[str, float] | None:
        """Metrics of the last evaluation, "minutes" and "ms a step"; None before the run is finished.

        Raises:
            CompareError: the folder holds a run with other arguments, or is damaged.
        """
        record = self.folder / "compare.json"
        if not record.exists():
            return None
        content = self._record(record)
        if content["arguments"] != self.arguments:
            raise CompareError(
                f"{self.folder} holds a run of other arguments ({' '.join(content['arguments'])}); "
                "delete the folder or choose another --output"
            )
        if not content["finished"]:
            return None
        evaluations = read_evaluations(str(self.folder / "evaluations.json"))
        if not evaluations:
            raise CompareError(f"{self.folder} holds a finished run without an evaluation; delete the folder")
        return flatten_results(evaluations[-1]["results"]) | self.step_time() | {"minutes": content["minutes"]}

    def step_time(self) -> dict[str, float]:
        """Median milliseconds of a training step, of what the trainer wrote every few steps; nothing of a few steps."""
        seconds = [value for _, value in read_metrics(self.folder).get("time", ())]
        return {STEP: 1000 * statistics.median(seconds)} if seconds else {}

    @staticmethod
    def _record(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {key: content[key] for key in ("arguments", "finished", "minutes")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CompareError(f"{path} is damaged ({error!r}); delete its folder, or the file") from None

    def train(self) -> None:
        """Train to the end, or go on.

        Raises:
            subprocess.CalledProcessError: the training failed; its output is in ``output.txt`` of the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self.folder / "compare.json"
        before = float(self._record(record)["minutes"]) if record.exists() else 0.0
        start = time.perf_counter()
        for finished in (False, True):
            if finished:
                with open(self.folder / "output.txt", "a", encoding="utf-8") as output:
                    command = [*PROGRAM, self.row.config, "--resume", *self._settings]
                    subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=True)
            minutes = before + (time.perf_counter() - start) / 60
            content = {"arguments": self.arguments, "finished": finished, "minutes": minutes}
            record.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_comparison(path: Path, *, overrides: Sequence[str], seeds: Sequence[int] | None) -> Comparison:
    """Read the file that lists the rows.

    Args:
        path: YAML as described above.
        overrides: of every run, after those of the file.
        seeds: instead of those of the file.

    Raises:
        CompareError: a key is missing or unknown.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise CompareError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict) or not {"seeds", "metrics", "rows"} <= content.keys():
        raise CompareError(f"{path} must have the keys seeds, metrics and rows")
    if not isinstance(content["rows"], dict) or not content["rows"]:
        raise CompareError(f"{path}: rows must name at least one row")
    seeds = content["seeds"] if seeds is None else seeds
    for key, values, kind in (
        ("seeds", seeds, int),
        ("metrics", content["metrics"], str),
        ("overrides", content.get("overrides") or [], str),
    ):
        if not isinstance(values, (list, tuple)) or not all(type(value) is kind for value in values):
            raise CompareError(f"{path}: {key} must be a list of {'integers' if kind is int else 'texts'}")
        if not values and key != "overrides":
            raise CompareError(f"{path}: {key} is empty")
    if min(seeds) < 0:
        raise CompareError(f"{path}: seeds must not be negative, got {min(seeds)}")
    rows = []
    for name, row in content["rows"].items():
        if not isinstance(row, dict) or "config" not in row or not row.keys() <= {"config", "overrides"}:
            got = sorted(map(str, row)) if isinstance(row, dict) else repr(row)
            raise CompareError(f'{path}: row "{name}" must have the key config and may have overrides, got {got}')
        own = row.get("overrides") or []
        if not isinstance(own, list):
            raise CompareError(f'{path}: row "{name}": overrides must be a list of texts')
        of_row = (*(content.get("overrides") or ()), *map(str, own), *overrides)
        rows.append(Row(name=str(name), config=str(row["config"]), overrides=of_row))
    return Comparison(seeds=tuple(seeds), metrics=tuple(content["metrics"]), rows=tuple(rows))


def plan(comparison: Comparison, output: Path) -> list[Run]:
    """All runs, in the order in which they are trained.

    Raises:
        CompareError: two rows would have one folder.
    """
    folders: dict[str, Row] = {}
    for row in comparison.rows:
        folder = re.sub(r"\W+", "_", row.name.lower().replace("+", " plus ")).strip("_")
        if folder in folders:
            raise CompareError(f'rows "{folders[folder].name}" and "{row.name}" would both be in {output / folder}')
        folders[folder] = row
    return [
        Run(row=row, seed=seed, folder=output / folder / f"seed{seed}")
        for seed in comparison.seeds
        for folder, row in folders.items()
    ]


def table(metrics: Sequence[str], results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown: a line for each row of ``results``, which has the metrics of its finished runs."""
    columns = (*metrics, STEP, "minutes")
    lines = [
        "| run | seeds | " + " | ".join(name.removeprefix("bbox/") for name in columns) + " |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for name, runs in results.items():
        cells = [name, str(len(runs))]
        for column in columns:
            values = [run[column] for run in runs if column in run]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(metric: str, results: Mapping[str, Sequence[Run]], output: Path) -> None:
    """Curves of the finished runs of each row."""
    panels: dict[str, dict[str, list[Path]]] = {}
    for name, runs in results.items():
        if runs:
            title, _, line = name.partition(", ")
            panels.setdefault(title, {})[line or "as published"] = [run.folder for run in runs]
    plot_panels(panels, output, metric=metric)


def compare(comparison: Comparison, output: Path, *, train: bool = True, picture: Path | None = None) -> str:
    """Train what is missing and make the table.

    Args:
        comparison: from `read_comparison`.
        output: the folder of all runs.
        train: False shows what is finished.
        picture: a file for curves of the first metric; rows "X" and "X, with something" share a panel.

    Raises:
        CompareError: a folder holds something else or cannot be made, or there is nothing to draw.
        TrainingFailed: a training ended with an error.
    """
    runs = plan(comparison, output)
    finished = {run.folder: run.results() for run in runs}  # before anything is trained: refuses early
    if train:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompareError(f"{output}: the folder cannot be made ({error.strerror}); see --output") from error
    for run in runs if train else ():
        if finished[run.folder] is None:
            print(f"{run.row.name}, seed {run.seed}: {run.folder}", file=sys.stderr, flush=True)
            try:
                run.train()
            except subprocess.CalledProcessError as error:
                raise TrainingFailed(f"the training failed; see {run.folder / 'output.txt'}") from error
            finished[run.folder] = run.results()
    by_row = {
        row.name: [run for run in runs if run.row == row and finished[run.folder] is not None]
        for row in comparison.rows
    }
    if picture is not None:
        if not any(by_row.values()):
            raise CompareError("--picture: there are no panels to draw: no run is finished")
        with writing(picture) as file:
            draw(comparison.metrics[0], by_row, file)
    numbers = {name: [finished[run.folder] or {} for run in of_row] for name, of_row in by_row.items()}
    differences = differences_of(comparison.metrics[0], by_row)
    return table(comparison.metrics, numbers) + (f"\n\n{differences}" if differences else "")


def differences_of(metric: str, by_row: Mapping[str, Sequence[Run]]) -> str:
    """The paired differences of a metric between the rows; of AP also by groups of classes, and over images.

    Args:
        metric: "task/metric".
        by_row: the finished runs.
    """
    rows: dict[str, Scores] = {}
    groups: dict[str, dict[str, Scores]] = {}
    if len([name for name, runs in by_row.items() if runs]) < 2:
        return ""
    for name, runs in by_row.items():
        values = {run.seed: value for run in runs if (value := (run.results() or {}).get(metric)) is not None}
        images = {run.seed: _resampled(run.folder) for run in runs} if metric == "bbox/AP" else {}
        if not images or any(each is None for each in images.values()):
            rows[name] = Scores(values, {}, {})
            continue
        whole = {seed: each for seed, each in images.items() if each is not None and seed in values}
        rows[name] = Scores(
            values,
            {seed: each["all"][1:] for seed, each in whole.items()},
            {seed: float(each["all"][0]) for seed, each in whole.items()},
        )
        for group in next(iter(whole.values())).keys() - {"all"} if whole else ():
            on_all = {seed: float(each[group][0]) for seed, each in whole.items()}
            drawn = {seed: each[group][1:] for seed, each in whole.items()}
            groups.setdefault(group, {})[name] = Scores(on_all, drawn, on_all)
    groups = {name: of for name, of in sorted(groups.items()) if of.keys() == rows.keys()}
    return differences_table(metric.removeprefix("bbox/"), rows, groups)


def _resampled(folder: Path) -> dict[str, NDArray[np.float64]] | None:
    """AP of a run on its images as they are (first) and on resampled ones, of all classes and of groups of them.

    None where the run's detections, or what they are compared with, are gone.
    """
    try:
        run = read_run(folder)
        truth = run.truth
        scored = ResampledAP(truth, run.detections(), style=run.style, max_dets=run.max_dets)
    except (UserError, OSError):
        return None
    count = len(scored.image_ids)
    weights = np.concatenate([np.ones((1, count)), drawn_weights(count, DRAWINGS)])
    aps = scored.class_aps(weights)
    found = {"all": np.nanmean(aps, axis=1)}
    for name, mask in class_groups(truth, scored.objects()).items():
        of_group = aps[:, mask]
        if np.isfinite(of_group).any(1).all():
            found[name] = np.nanmean(of_group, axis=1)
    return found

"""Curves of trainings."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hdetr_d2.annotations import DatasetError


def read_metrics(path: str | os.PathLike[str]) -> dict[str, list[tuple[int, float]]]:
    """The series of a Detectron2 metrics.json (one json object a line): name -> [(iteration, value), ...].

    A run that was resumed has written some iterations twice; the later value counts. A last line that was cut off by a
    crash is ignored, as are values that are not finite numbers.

    Args:
        path: the file, or the output folder that holds it.

    Raises:
        DatasetError: there is no such file.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "metrics.json"
    if not file.is_file():
        raise DatasetError(f"there is no {file}; give a run's metrics.json or its output folder")
    series: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error})") from error
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        iteration = entry.get("iteration") if isinstance(entry, dict) else None
        if type(iteration) is not int:
            continue
        for name, value in entry.items():
            if name != "iteration" and type(value) in (int, float) and math.isfinite(value):
                series[name][int(iteration)] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def plot_runs(
    runs: Mapping[str, str | os.PathLike[str]], output: str | os.PathLike[str], *, loss: str = "total_loss"
) -> None:
    """Draws loss and AP curves of one or several runs side by side into a PNG (or any format that Matplotlib knows).

    Args:
        runs: name in the legend -> metrics.json or output folder.
        output: file to write.
        loss: the series of the left diagram.

    Raises:
        DatasetError: a run has no metrics.json, a named file is something else, or no run has recorded ``loss``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not runs:
        raise ValueError("there are no runs to draw")
    series = {name: read_metrics(path) for name, path in runs.items()}
    for name, path in runs.items():
        if not series[name] and os.path.isfile(path) and os.path.getsize(path):
            raise DatasetError(f"{os.fspath(path)} is no metrics.json of a run: no line of it has an iteration")
    known = sorted({key for metrics in series.values() for key in metrics})
    if not known:
        raise DatasetError(f"nothing is recorded yet in {', '.join(os.fspath(path) for path in runs.values())}")
    if loss not in known:
        raise DatasetError(f'no run has recorded "{loss}"; there are {", ".join(known[:20])}')
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for index, (name, metrics) in enumerate(series.items()):
        colour = f"C{index % 10}"
        _plot_loss(left, name, metrics.get(loss, []), colour)
        average = "" if "bbox/AP" in metrics else "ema/"  # of a run that evaluates the moving average alone
        for metric, style in (("bbox/AP", "-"), ("bbox/AP50", "--")):
            points = metrics.get(average + metric, [])
            if points:
                x, y = zip(*points)
                label = f"{average}{metric.partition('/')[2]}, {name}: {y[-1]:.1f}"
                right.plot(x, y, style, marker="o", markersize=3, color=colour, label=label)
    left.set(title=loss, xlabel="iteration", ylabel="loss")
    right.set(title="COCO box AP on the validation set", xlabel="iteration", ylabel="AP (%)", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        else:
            axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", transform=axes.transAxes)
    figure.savefig(output, dpi=110)


def _plot_loss(axes: Any, name: str, points: Sequence[tuple[int, float]], colour: str) -> None:
    """The raw values faintly, and their running mean over a twentieth of the run."""
    if not points:
        return
    iterations, values = zip(*points)
    half = len(values) // 40
    smooth = []
    for index in range(len(values)):
        window = values[max(0, index - half) : index + half + 1]
        smooth.append(sum(window) / len(window))
    axes.plot(iterations, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(iterations, smooth, color=colour, label=name)


def plot_panels(
    panels: Mapping[str, Mapping[str, Sequence[str | os.PathLike[str]]]],
    output: str | os.PathLike[str],
    *,
    metric: str = "bbox/AP",
    columns: int = 5,
) -> None:
    """Draws how a metric rose in many runs: a panel a model, a line a way of training it, faint where one seed's.

    Args:
        panels: title -> name in the legend -> metrics.json or output folder of each seed. A name has one colour in
            all panels.
        output: file to write, in any format that Matplotlib knows.
        metric: the series, a percentage.
        columns: panels beside each other.

    Raises:
        DatasetError: a run has no metrics.json, or no values of the metric.
        ValueError: there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("there are no panels to draw")
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2.3 * columns, 2.0 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    legend: dict[str, Any] = {}
    for axes, (title, lines) in zip(grid, panels.items()):
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelbottom=axes in grid[max(0, len(panels) - columns) : len(panels)])
        axes.grid(alpha=0.3)
        for name, runs in lines.items():
            colour = f"C{list(legend).index(name) if name in legend else len(legend)}"
            values: dict[int, list[float]] = defaultdict(list)
            for run in runs:
                points = read_metrics(run).get(metric, [])
                if not points:
                    raise DatasetError(f"{run} has no values of {metric}")
                axes.plot(*zip(*points), color=colour, alpha=0.3, linewidth=0.8)
                for iteration, value in points:
                    values[iteration].append(value)
            means = [(iteration, sum(several) / len(several)) for iteration, several in sorted(values.items())]
            (legend[name],) = axes.plot(*zip(*means), color=colour, marker="o", markersize=2.5, linewidth=1.5)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("iteration", fontsize=9)
    figure.supylabel(f"{metric.partition('/')[2] or metric} (%)", fontsize=9)
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=len(legend), fontsize=9)
    figure.savefig(output, dpi=110)

"""The report of a fine-tuning as one HTML page that needs nothing else: pictures inside it, no script, no network."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import IO

from hdetr_d2.annotations.layouts import CocoSplit
from hdetr_d2.description import ModelDescription
from hdetr_d2.evaluation import Detections, GroundTruth
from hdetr_d2.evaluation.error_kinds import ErrorKinds, error_kinds
from hdetr_d2.evaluation.longtail.charts import Frame, Series, grouped_bars, nice_ticks, short_number, svg
from hdetr_d2.evaluation.longtail.style import CSS
from hdetr_d2.evaluation.metrics import Metrics, split_classes
from hdetr_d2.evaluation.operating import OperatingPoint, Style
from hdetr_d2.output import write_atomically
from hdetr_d2.visualization import read_metrics

from .pictures import Picture, choose_pictures

REPORT_FILE = "report.html"
_MOST_CONFUSED = 24
"""Classes up to which the confusion matrix is shown whole."""
_EXPLAINED = {
    "missed": "an object that nothing was found for",
    "wrong class": "well placed, but called something else",
    "badly placed": "the right class, but too far from the object (IoU 0.1 to 0.5)",
    "wrong class and badly placed": "neither right",
    "duplicate": "a second box for an object that has a better one",
    "background": "there is no object",
}
_OWN_CSS = """
code { background: var(--band); border-radius: 4px; padding: 1px 5px; overflow-wrap: anywhere; }
pre { background: var(--band); border-radius: 8px; padding: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
.pairs { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); }
.pairs figure { margin: 0; } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
.pair img { width: 100%; height: auto; display: block; border-radius: 4px; }
.pairs figcaption { font-size: .86rem; overflow-wrap: anywhere; margin-bottom: 4px; }
td.why, td.given { white-space: normal; text-align: left; } td.given { overflow-wrap: anywhere; min-width: 5em; }
td.why { min-width: 9em; } td.name small { display: block; color: var(--soft); }
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page shows.

    Args:
        folder: of the run.
        file: of the weights that were judged.
        iteration: after which they were written.
        description: of the model, with its thresholds.
        truth: the validation set's annotations.
        split: its files.
        style: whose metrics.
        metrics: of all detections.
        detections: all of them.
        point: the thresholds.
    """

    folder: Path
    file: str
    iteration: int
    description: ModelDescription
    truth: GroundTruth
    split: CocoSplit
    style: Style
    metrics: Metrics
    detections: Detections
    point: OperatingPoint


def write_report(report: Report, path: Path) -> None:
    """Write the page."""
    content = render(report).encode()

    def write(file: IO[bytes]) -> None:
        file.write(content)

    write_atomically(os.fspath(path), write)


def render(report: Report) -> str:
    """The page."""
    shown = report.point.keep(report.detections)
    kinds = error_kinds(report.truth, report.detections, shown, lvis=report.style == "lvis")
    pictures = choose_pictures(report.split, report.truth, shown)
    sections = [
        _header(report),
        _tiles(report, kinds),
        _curves(report.folder),
        _pictures(pictures),
        _errors(kinds),
        _confusion(kinds),
        _thresholds(report),
        _choices(report.folder),
        _use(report),
    ]
    title = f"{report.folder.resolve().name}: fine-tuning"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{CSS}{_OWN_CSS}</style></head>\n'
        f"<body><main>\n{chr(10).join(section for section in sections if section)}\n</main></body></html>\n"
    )


def number(value: float, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _header(report: Report) -> str:
    names = report.description.class_names
    few = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    objects = sum(each.objects for each in report.point.classes.values())
    return (
        f"<header><h1>{escape(report.folder.resolve().name)}</h1>"
        f'<p class="soft">{len(names)} classes: {escape(few)}. Measured on the validation set, '
        f"{len(report.truth.image_ids):,} images with {objects:,} objects, with <code>{escape(report.file)}</code> of "
        f"step {report.iteration:,}.</p></header>"
    )


def _tiles(report: Report, kinds: ErrorKinds) -> str:
    metrics, point = report.metrics, report.point
    shown = sum(each.shown for each in point.classes.values())
    objects = sum(each.objects for each in point.classes.values())
    right = sum(each.recall * each.objects for each in point.classes.values())
    values = [
        ("AP", number(metrics["AP"])),
        ("AP50", number(metrics["AP50"])),
        ("AP75", number(metrics["AP75"])),
        ("precision, shown", number(100 * right / shown if shown else math.nan)),
        ("recall, shown", number(100 * right / objects if objects else math.nan)),
        ("score error", number(100 * kinds.calibration_error)),
    ]
    tiles = "".join(f'<div class="tile"><b>{name}</b><span>{value}</span></div>' for name, value in values)
    return (
        f'<section id="metrics"><div class="tiles">{tiles}</div><p class="note">All in percent. AP is over all scores; '
        "precision and recall are of the detections above their class's threshold, at an IoU of 0.5. The score error "
        "is the mean distance between scores and the share of detections that are right.</p></section>"
    )


def _curves(folder: Path) -> str:
    if not (folder / "metrics.json").is_file():
        return ""
    series = read_metrics(folder)
    loss = _line("training loss", [("loss", series.get("total_loss", []), False)], "loss")
    aps = [
        (name.removeprefix("ema/").removeprefix("bbox/") + (", average of weights" if name.startswith("ema/") else ""),
         series[name], name.endswith("AP50"))
        for name in ("ema/bbox/AP", "ema/bbox/AP50", "bbox/AP", "bbox/AP50")
        if name in series
    ]  # fmt: skip
    ap = _line("AP on the validation set", aps, "AP (%)")
    cards = "".join(
        f'<div class="card"><h3>{name}</h3>{chart}</div>'
        for name, chart in (("Loss in training", loss), ("AP on the validation set", ap))
        if chart
    )
    return f'<section id="curves"><h2>Training</h2><div class="grid two">{cards}</div></section>' if cards else ""


def _line(title: str, lines: Sequence[tuple[str, Sequence[tuple[int, float]], bool]], label: str) -> str:
    """A diagram over steps; "" without a point."""
    lines = [line for line in lines if line[1]]
    if not lines:
        return ""
    last = max(step for _, points, _ in lines for step, _ in points) + 1
    top, y_ticks = nice_ticks(max(value for _, points, _ in lines for _, value in points))
    right, x_ticks = nice_ticks(last)
    ticks = [(value, short_number(value) if value else "0") for value, _ in x_ticks]
    frame = Frame(x_range=(0, right), y_range=(0, top), x_label="step", y_label=label)
    parts, legend = [frame.axes(ticks, y_ticks)], []
    for index, (name, points, dashed) in enumerate(lines):
        steps, values = [step + 1 for step, _ in points], [value for _, value in points]
        style = f"s{min(index // 2, 1)}"
        series = Series(name=name, style=style, x=steps, y=values, dashed=dashed)
        parts.append(frame.line(series))
        if len(points) <= 40:
            parts.append(frame.points(series, 2.5))
        legend.append((name, style, dashed))
    return svg(title, *parts, legend=legend if len(legend) > 1 else [])


def _pictures(pictures: Sequence[Picture]) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(each.name)}: {each.caption}</figcaption>"
        f'<div class="pair"><img src="{each.truth}" alt="annotations of {escape(each.name)}">'
        f'<img src="{each.found}" alt="detections in {escape(each.name)}"></div></figure>'
        for each in pictures
    )
    return (
        '<section id="pictures"><h2>Pictures</h2><p class="soft">Annotations on the left, detections above their '
        f'thresholds on the right; those with the most errors first.</p><div class="pairs">{figures}</div></section>'
        if figures
        else ""
    )


def _errors(kinds: ErrorKinds) -> str:
    rows = "".join(
        f'<tr data-kind="{name}"><td class="name">{name}<small>{_EXPLAINED[name]}</small></td><td>{count:,}</td>'
        f"<td>{kinds.ap_lost[name]:.1f}</td></tr>"
        for name, count in kinds.counts.items()
    )
    short = {"wrong class": "class", "badly placed": "place", "wrong class and badly placed": "both"}
    short["background"] = "backgr."  # room below a bar
    bars = grouped_bars(
        "Errors by kind",
        [short.get(name, name) for name in kinds.counts],
        [("errors", "s0", [float(count) for count in kinds.counts.values()])],
        y_label="errors",
        digits=0,
    )
    return (
        '<section id="errors"><h2>Errors</h2><div class="grid two">'
        f'<div class="card"><h3>Errors by kind</h3>{bars}</div><div class="card"><h3>What they are</h3>'
        '<div class="scroll"><table><tr><th>kind</th><th>number</th><th>AP50 lost</th>'
        f"</tr>{rows}</table></div></div></div>"
        '<p class="note">Numbers are of the detections above their thresholds; AP50 lost is what all detections would '
        "gain in percent if there were no errors of the kind (TIDE).</p></section>"
    )


def _confusion(kinds: ErrorKinds) -> str:
    names = [*kinds.class_names, "(nothing)"]
    if len(kinds.class_names) > _MOST_CONFUSED:
        return _most_confused(kinds, names)
    totals = kinds.confusion.sum(axis=1)
    rows = []
    for row, name in enumerate(names):
        cells = "".join(
            f'<td class="heat" style="--part:{count / totals[row] if totals[row] else 0:.3f}">{count or ""}</td>'
            for count in kinds.confusion[row].tolist()
        )
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return (
        '<section id="confusion"><h2>What is taken for what</h2><div class="card"><div class="scroll">'
        f'<table class="heatmap tight"><tr><th>object \\ detected</th>{head}</tr>{"".join(rows)}</table></div></div>'
        '<p class="note">A row for each class of objects, a column for what they were detected as, above the '
        "thresholds; the last row is detections where nothing is, the last column objects that were missed.</p>"
        "</section>"
    )


def _most_confused(kinds: ErrorKinds, names: Sequence[str]) -> str:
    matrix = kinds.confusion
    pairs = [
        (int(matrix[row, column]), row, column)
        for row, column in zip(*matrix.nonzero(), strict=True)
        if row != column and row < len(names) - 1 and column < len(names) - 1
    ]
    rows = "".join(
        f'<tr><td class="name">{escape(names[row])}</td><td class="text">{escape(names[column])}</td>'
        f"<td>{count}</td></tr>"
        for count, row, column in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:30]
    )
    return (
        '<section id="confusion"><h2>What is taken for what</h2><div class="card"><div class="scroll"><table>'
        f'<tr><th>object</th><th class="text">detected as</th><th>times</th></tr>{rows}</table></div></div></section>'
        if rows
        else ""
    )


def _thresholds(report: Report) -> str:
    aps = split_classes(report.metrics)[1]
    rows = []
    for (category, name), known in zip(
        report.truth.category_names.items(), report.description.class_names, strict=True
    ):
        each = report.point.classes[category]
        note = "" if each.f1 else ' <span class="chip">as all</span>'
        rows.append(
            f'<tr data-category="{category}"><td class="name">{escape(known)}{note}</td><td>{each.objects:,}</td>'
            f"<td>{number(aps.get(name, math.nan))}</td><td>{each.score:.3f}</td><td>{100 * each.f1:.1f}</td>"
            f"<td>{100 * each.precision:.1f}</td><td>{100 * each.recall:.1f}</td></tr>"
        )
    overall = report.point.overall
    return (
        '<section id="thresholds"><h2>Thresholds</h2><p class="soft">For each class the score from which on a '
        "detection is shown, chosen for the best F1 on the validation set. They are stored in the model, and "
        f"<code>predict</code> uses them. One threshold for all classes would be {overall.score:.3f}.</p>"
        '<div class="card"><div class="scroll"><table><tr><th>class</th><th>objects</th><th>AP</th><th>threshold</th>'
        f"<th>F1</th><th>precision</th><th>recall</th></tr>{''.join(rows)}</table></div></div></section>"
    )


def _choices(folder: Path) -> str:
    file = folder / "start" / "choices.json"
    if not file.is_file():
        return ""
    rows = "".join(
        f'<tr><td>{_breakable(str(each["key"]))}</td><td class="given">{escape(_plain(each["value"]))}</td>'
        f'<td class="why">{escape(str(each["why"]))}</td></tr>'
        for each in json.loads(file.read_text(encoding="utf-8"))
    )
    return (
        '<section id="choices"><h2>What was chosen</h2><div class="card"><div class="scroll"><table>'
        f'<tr><th>setting</th><th class="text">value</th><th class="text">why</th></tr>{rows}</table></div></div>'
        "</section>"
    )


def _breakable(key: str) -> str:
    """A dotted key that a narrow screen may break at its dots."""
    return escape(key).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value) or "none"
    return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _use(report: Report) -> str:
    command = f"hdetr-d2 predict IMAGES --model {report.folder} --output found"
    return f'<section id="use"><h2>Detect with it</h2><pre>{escape(command)}</pre></section>'

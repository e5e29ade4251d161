"""The parts of the long-tail report that are diagrams."""

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from ..ground_truth import FREQUENCIES
from .charts import Band, Frame, Series, log_ticks, nice_ticks, short_number, svg
from .figures import ClassFigures, Confusion, LongTailFigures

GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
STYLES = ("s0", "s1")  # of the first and the second run
_FEWEST = 5  # detections of a bin of the calibration diagram, below which chance decides
_TREND_PARTS = 24  # of the rank axis, over which a trend line averages


def number(value: float, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def chip(group: str) -> str:
    """A group's name in small."""
    return f'<span class="chip">{GROUP_NAMES[group]}</span>'


def rank_section(runs: Sequence[LongTailFigures]) -> str:
    """AP and positive queries of every class, from the most frequent to the rarest."""
    return (
        '<section id="ranks"><h2>By class rank</h2><p class="soft">Every dot is a class, from the one with the most '
        "training images on the left to the rarest on the right; the lines are means of neighbouring classes.</p>"
        f'<div class="grid two"><div class="card"><h3>AP</h3>{_ap_chart(runs)}<p class="note">Classes without objects '
        f'among the evaluated images are left out.</p></div><div class="card" id="positives"><h3>Positive queries in '
        f"training</h3>{_positives(runs)}</div></div></section>"
    )


def _ap_chart(runs: Sequence[LongTailFigures]) -> str:
    series = [_by_rank(run, STYLES[index], lambda each: each.ap) for index, run in enumerate(runs)]
    top, y_ticks = nice_ticks(max([y for each in series for y in each.y if not math.isnan(y)], default=100.0))
    frame, ticks = _rank_frame(runs, (0, top), "AP (%)")
    parts = [frame.bands(_bands(runs[0].classes)), frame.axes(ticks, y_ticks)]
    parts += [frame.points(each, _radius(runs[0])) for each in series]
    parts += [frame.line(_trend(each, len(runs[0].classes))) for each in series]
    legend = [(run.name, STYLES[index], False) for index, run in enumerate(runs)]
    return svg("AP of every class by rank", *parts, legend=legend if len(runs) > 1 else [])


def _positives(runs: Sequence[LongTailFigures]) -> str:
    """How many queries learned to detect each class."""
    counted = [index for index, run in enumerate(runs) if run.classes and run.classes[0].one_to_one is not None]
    if not counted:
        return (
            '<p class="soft">Not counted. With a <code>counter</code> in the criterion a training writes them to '
            "<code>positives.json</code> in its output folder.</p>"
        )
    series = []
    for index in counted:
        run = runs[index]
        for kind, dashed, value in _POSITIVES:
            if any(value(each) > 0 for each in run.classes):
                series.append((f"{run.name}, {kind}", _by_rank(run, STYLES[index], value, dashed=dashed)))
    highest = max([y for _, each in series for y in each.y], default=1.0)
    top, y_ticks = log_ticks(highest)
    frame, ticks = _rank_frame(runs, (0, top), "positive queries", log_y=True)
    parts = [frame.bands(_bands(runs[0].classes)), frame.axes(ticks, y_ticks)]
    parts += [frame.points(each, _radius(runs[0])) for _, each in series]
    parts += [frame.line(_trend(each, len(runs[0].classes))) for _, each in series]
    chart = svg(
        "Positive queries by class rank", *parts, legend=[(name, each.style, each.dashed) for name, each in series]
    )
    return (
        f'{chart}<p class="note">How often a query was given an object of the class to learn, in one-to-one and in '
        "one-to-many matching, over all decoder layers and steps. The axis is logarithmic. Mean of a class:</p>"
        f"{_positives_table(runs, counted)}"
    )


def _one_to_one(each: ClassFigures) -> float:
    return float(each.one_to_one or 0)


def _one_to_many(each: ClassFigures) -> float:
    return float(each.one_to_many or 0)


_POSITIVES: tuple[tuple[str, bool, Callable[[ClassFigures], float]], ...] = (
    ("one-to-one", False, _one_to_one),
    ("one-to-many", True, _one_to_many),
)


def _positives_table(runs: Sequence[LongTailFigures], counted: Sequence[int]) -> str:
    """Means by group."""
    head = '<tr><th>run</th><th class="text">matching</th>'
    head += "".join(f"<th>{name}</th>" for name in GROUP_NAMES.values())
    rows = []
    for index in counted:
        for kind, _, value in _POSITIVES:
            means = []
            for group in FREQUENCIES:
                values = [value(each) for each in runs[index].classes if each.group == group]
                means.append(f"<td>{short_number(sum(values) / len(values))}</td>" if values else "<td>-</td>")
            name = f'<td class="{STYLES[index]}t">{escape(runs[index].name)}</td>'
            rows.append(f'<tr>{name}<td class="text">{kind}</td>{"".join(means)}</tr>')
    return f'<div class="scroll"><table class="tight">{head}</tr>{"".join(rows)}</table></div>'


def confusion_section(runs: Sequence[LongTailFigures]) -> str:
    """What objects are called."""
    cards = []
    for make in (_confusion_table, _pairs_table):
        for index, run in enumerate(runs):
            title = f'<h3 class="{STYLES[index]}t">{escape(run.name)}</h3>' if len(runs) > 1 else ""
            cards.append(f'<div class="card">{title}{make(run.confusion)}</div>')
    return (
        '<section id="confusion"><h2>What objects are called</h2><p class="soft">Of all detections that overlap an '
        "object (IoU at least 0.5), the one with the highest score says what the model takes it for. In LVIS an object "
        "may rightly have several names of which only some are annotated, so not every other name is an error.</p>"
        f'<div class="grid two">{"".join(cards)}</div></section>'
    )


def _confusion_table(confusion: Confusion) -> str:
    rows = []
    for group, counts in zip(FREQUENCIES, confusion.counts.tolist()):
        total = sum(counts)
        cells = "".join(
            f'<td class="heat" style="--part:{count / total if total else 0:.3f}" title="{count} of {total}">'
            f"{f'{100 * count / total:.1f}' if total else '-'}</td>"
            for count in counts
        )
        rows.append(f'<tr><td>{GROUP_NAMES[group]}<br><span class="soft">{total:,}</span></td>{cells}</tr>')
    others = "".join(f"<th>{name}</th>" for name in ("rare", "comm.", "freq."))
    return (
        '<p class="note">Percent of the objects of a group, by what they are called</p><div class="scroll">'
        '<table class="tight heatmap"><tr><th></th><th></th><th colspan="3" class="over">another class that is</th>'
        f"<th></th></tr><tr><th></th><th>right</th>{others}<th>none</th></tr>{''.join(rows)}</table></div>"
    )


def _pairs_table(confusion: Confusion) -> str:
    rows = "".join(
        f'<tr><td class="name">{escape(pair.name)} {chip(pair.group)}</td>'
        f'<td class="name text">{escape(pair.called)} {chip(pair.called_group)}</td>'
        f"<td>{pair.count} of {pair.objects}</td></tr>"
        for pair in confusion.pairs
    )
    body = (
        '<div class="scroll"><table><tr><th>annotated</th><th class="text">called</th><th>objects</th></tr>'
        f"{rows}</table></div>"
        if rows
        else "<p>None.</p>"
    )
    return f'<p class="note">Rare and common classes that are taken for others most often</p>{body}'


def calibration_section(runs: Sequence[LongTailFigures]) -> str:
    """Score against precision, a diagram for every group."""
    cards = []
    for group in FREQUENCIES:
        frame = Frame(x_range=(0, 1), y_range=(0, 1), x_label="score", y_label="part that is right")
        ticks = [(value / 5, f"{value / 5:g}") for value in range(6)]
        start, end = f"{frame.x(0):.1f},{frame.y(0):.1f}", f"{frame.x(1):.1f},{frame.y(1):.1f}"
        parts = [frame.axes(ticks, ticks), f'<polyline class="diagonal" points="{start} {end}"/>']
        legend = []
        for index, run in enumerate(runs):
            found = run.calibration[group]
            titles = [f"{run.name}: {count:,} detections" for count in found.counts.tolist()]
            precision = np.where(found.counts >= _FEWEST, found.precision, np.nan)
            series = Series(run.name, STYLES[index], found.scores.tolist(), precision.tolist(), titles)
            parts += [frame.line(series), frame.points(series, 4).replace('class="dot', 'class="dot big')]
            error = f"{100 * found.error:.1f}" if not math.isnan(found.error) else "-"
            legend.append((f"{run.name}: error {error} %, {found.counts.sum():,} detections", STYLES[index], False))
        name = GROUP_NAMES[group]
        cards.append(
            f'<div class="card"><h3>{name}</h3>{svg(f"Calibration, {name} classes", *parts, legend=legend)}</div>'
        )
    return (
        '<section id="calibration"><h2>Score calibration by group</h2><p class="soft">Detections in ten bins of their '
        "score: on the dotted line a score is the probability of being right (IoU at least 0.5). Below it a group's "
        "scores promise too much, above it too little. Only detections that LVIS judges count; bins "
        f"of fewer than {_FEWEST} are not drawn. The error is the mean distance from the line over all of them.</p>"
        f'<div class="grid">{"".join(cards)}</div></section>'
    )


def _bands(classes: Sequence[ClassFigures]) -> list[Band]:
    bands, start = [], 0
    for group in reversed(FREQUENCIES):
        count = sum(each.group == group for each in classes)
        if count:
            bands.append(Band(GROUP_NAMES[group], start, start + count))
        start += count
    return bands


def _rank_frame(
    runs: Sequence[LongTailFigures], y_range: tuple[float, float], y_label: str, *, log_y: bool = False
) -> tuple[Frame, list[tuple[float, str]]]:
    count = len(runs[0].classes)
    label = "class, by falling number of training images"
    frame = Frame(x_range=(0, count), y_range=y_range, x_label=label, y_label=y_label, log_y=log_y)
    return frame, [tick for tick in nice_ticks(count)[1] if tick[0] <= count]


def _by_rank(
    run: LongTailFigures, style: str, value: Callable[[ClassFigures], float], *, dashed: bool = False
) -> Series:
    values = [value(each) for each in run.classes]
    titles = [
        f"{each.name} ({GROUP_NAMES[each.group]}, {each.images:,} training images): {y:,.2f}".removesuffix(".00")
        for each, y in zip(run.classes, values)
    ]
    return Series(run.name, style, [rank + 0.5 for rank in range(len(values))], values, titles, dashed)


def _trend(series: Series, count: int) -> Series:
    """Means over parts of the axis."""
    parts = np.array_split(np.arange(count), min(_TREND_PARTS, max(1, count // 4)))
    values = np.array(series.y, dtype=np.float64)
    points = [
        (float(part.mean()) + 0.5, float(np.nanmean(values[part])))
        for part in parts
        if not np.isnan(values[part]).all()
    ]
    return Series(series.name, series.style, [x for x, _ in points], [y for _, y in points], (), series.dashed)


def _radius(run: LongTailFigures) -> float:
    """Smaller dots where there are many."""
    return 2.6 if len(run.classes) <= 300 else 1.7

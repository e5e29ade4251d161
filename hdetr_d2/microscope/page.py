"""What trainings matched with what, as one HTML page that needs nothing else: pictures inside it, no script."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hdetr_d2.evaluation.longtail.charts import Frame, Series, nice_ticks, short_number, svg
from hdetr_d2.evaluation.longtail.style import CSS

from .pictures import Picture, figure
from .statistics import Epochs, Numbers, Objects
from .suspects import Kind, Suspect

STYLES = ("s0", "s1", "s2", "s3")
"""Of up to four runs."""

SHOWN = 12
"""Objects, and suspects of a kind, in pictures."""

_MOST_ROWS = 12
"""Classes up to which the table of their positives is open."""

_OWN_CSS = """
:root { --s2: #16813d; --s3: #8b46c7; }
@media (prefers-color-scheme: dark) { :root { --s2: #56d27e; --s3: #c59bff; } }
.s2t { color: var(--s2); } .s3t { color: var(--s3); } i.s2 { color: var(--s2); } i.s3 { color: var(--s3); }
.line.s2 { stroke: var(--s2); } .line.s3 { stroke: var(--s3); }
.dot.s2 { fill: var(--s2); } .dot.s3 { fill: var(--s3); }
.tag.truth { fill: #fff; } .grid.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.tile span { display: block; } .tile span + span { margin-left: 0; }
figcaption b { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class ObservedRun:
    """A run that was recorded.

    Args:
        name: what the page calls it.
        is_two_stage: whether its queries are proposals.
        epochs, objects: of its recording.
        positives: by group of queries, for each class.
    """

    name: str
    is_two_stage: bool
    epochs: Epochs
    objects: Objects
    positives: Mapping[str, Numbers]


@dataclass(frozen=True)
class Page:
    """What the page shows.

    Args:
        runs: up to four; pictures are of the first one.
        class_names: of the dataset.
        records: of its images, by id.
        suspects: suspected label errors of the first run.
    """

    runs: Sequence[ObservedRun]
    class_names: Sequence[str]
    records: Mapping[int, Mapping[str, Any]]
    suspects: Mapping[Kind, Sequence[Suspect]]


_CURVES: Sequence[tuple[str, str, Callable[[Epochs], Numbers], str]] = (
    ("starved", "Starved objects", lambda e: 100 * e.starved,
     "Objects whose matched prediction in the last layer overlaps them by less than half (IoU)."),
    ("settled", "Objects with a stable match", lambda e: 100 * e.settled,
     "Objects that all decoder layers have, so far, once given the same query, with a prediction that overlaps them."),
    ("between_layers", "Instability between layers", lambda e: 100 * e.between_layers,
     "How often a decoder layer gives an object another query than the last layer does."),
    ("between_epochs", "Instability between epochs", lambda e: 100 * e.between_epochs,
     "How often an object's query in the last layer is another than when it was seen before (DN-DETR's IS, as a part "
     "of the objects)."),
    ("duplicates", "Share of duplicates", lambda e: 100 * e.duplicates,
     "Of the scores of the 32 best predictions of an image, the part of those that repeat a better one (same class, "
     "IoU above 0.7)."),
    ("price", "Price of one query more", lambda e: e.price,
     "Median over objects: what the total cost of matching would rise by if the object got one more query (the dual "
     "price). Low prices mean that many queries fit an object nearly as well."),
)  # fmt: skip

_KINDS: Mapping[Kind, tuple[str, str]] = {
    "wrong_class": (
        "Wrong class",
        "The queries around the object agree on another class; the price is what the object would cost less under it.",
    ),
    "displaced": (
        "Displaced",
        "What is matched knows the class and lies, on average, elsewhere; the price is what it would cost less there.",
    ),
    "doubled": (
        "Doubled",
        "Two annotations of a class overlap and want the same query; the price is what the dearer one costs above an "
        "easy object, times their IoU.",
    ),
    "missing": (
        "Missing",
        "Nothing is annotated where something was predicted again and again; the price is what an annotation there "
        "would be worth.",
    ),
}


def render(page: Page) -> str:
    """The page."""
    sections = [
        _header(page),
        _tiles(page.runs),
        _curves(page.runs),
        _positives(page),
        _objects(page, "hardest", "Hardest objects", -_hardness(page.runs[0].objects)),
        _objects(page, "restless", "Least stable objects", -_restlessness(page.runs[0].objects)),
        _suspects(page),
        _data(page),
    ]
    title = " and ".join(run.name for run in page.runs)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>Matching: {escape(title)}</title><style>{CSS}{_OWN_CSS}</style></head>'
        f"\n<body><main>\n{chr(10).join(section for section in sections if section)}\n</main></body></html>\n"
    )


def _header(page: Page) -> str:
    names = ", ".join(
        f'<span class="{style}t">{escape(run.name)}</span>' if len(page.runs) > 1 else escape(run.name)
        for run, style in zip(page.runs, STYLES)
    )
    first = page.runs[0]
    ranks = (
        " Its queries are the best proposals of each image, numbered by rank: between epochs even an object that is "
        "found the same way gets another number, so that only changes between layers tell."
        if first.is_two_stage
        else ""
    )
    return (
        f"<header><h1>Matching: {names}</h1>"
        f'<p class="soft">{len(first.objects.annotation):,} annotations, seen {int(first.objects.visits.sum()):,} '
        f"times in {int(first.epochs.step[-1]):,} steps of {escape(first.name)}.{ranks}</p></header>"
    )


def _tiles(runs: Sequence[ObservedRun]) -> str:
    def of(value: Callable[[ObservedRun], str]) -> str:
        kinds = [f' class="{style}t"' if len(runs) > 1 else "" for style in STYLES]
        return "".join(f"<span{kind}>{value(run)}</span>" for run, kind in zip(runs, kinds))

    values: Sequence[tuple[str, Callable[[ObservedRun], str]]] = (
        ("starved at the end", lambda run: _percent(run.epochs.starved[-1])),
        ("never stable", lambda run: _percent(1 - run.epochs.settled[-1])),
        ("median age of first stable match", lambda run: _age(run.objects)),
        ("changes between layers", lambda run: _percent(run.epochs.between_layers[-1])),
        ("duplicates", lambda run: _percent(run.epochs.duplicates[-1])),
        ("median price", lambda run: _number(run.epochs.price[-1], 2)),
    )
    tiles = "".join(f'<div class="tile"><b>{name}</b>{of(value)}</div>' for name, value in values)
    return f'<section id="summary"><div class="tiles">{tiles}</div></section>'


def _age(objects: Objects) -> str:
    """In visits, of the objects that ever had one."""
    ages = objects.settled[objects.settled >= 0]
    return f"visit {int(np.median(ages)) + 1}" if len(ages) else "-"


def _percent(part: float) -> str:
    return "-" if math.isnan(part) else f"{100 * part:.1f} %"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _curves(runs: Sequence[ObservedRun]) -> str:
    cards = []
    for key, title, values, note in _CURVES:
        chart = _chart(title, runs, values, "%" if key != "price" else "cost")
        if chart:
            cards.append(f'<div class="card" id="{key}"><h3>{title}</h3>{chart}<p class="note">{note}</p></div>')
    return f'<section id="curves"><h2>Over training</h2><div class="grid three">{"".join(cards)}</div></section>'


def _chart(title: str, runs: Sequence[ObservedRun], values: Callable[[Epochs], Numbers], label: str) -> str:
    """A curve of each run over its steps; "" where there is nothing."""
    lines = [(run, values(run.epochs)) for run in runs]
    known = np.concatenate([line[np.isfinite(line)] for _, line in lines])
    if not len(known):
        return ""
    low, high, ticks = _range(float(known.min()), float(known.max()))
    right, x_ticks = nice_ticks(max(float(run.epochs.step[-1]) for run in runs))
    frame = Frame(x_range=(0, right), y_range=(low, high), x_label="step", y_label=label)
    parts = [frame.axes([(value, short_number(value) if value else "0") for value, _ in x_ticks], ticks)]
    for (run, line), style in zip(lines, STYLES):
        titles = [f"{run.name}, step {step:.0f}: {value:.2f}" for step, value in zip(run.epochs.step, line)]
        series = Series(name=run.name, style=style, x=run.epochs.step.tolist(), y=line.tolist(), titles=titles)
        parts += [frame.line(series), frame.points(series, 3)]
    legend = [(run.name, style, False) for run, style in zip(runs, STYLES)] if len(runs) > 1 else []
    return svg(title, *parts, legend=legend)


def _range(least: float, most: float) -> tuple[float, float, list[tuple[float, str]]]:
    """Ends of an axis that may go below 0, and numbers on it."""
    if least >= 0:
        top, ticks = nice_ticks(most)
        return 0.0, top, ticks
    _, above = nice_ticks(max(most, 0.0) - least)
    step = above[1][0]
    low = math.floor(least / step) * step
    high = max(math.ceil(most / step) * step, low + step)
    count = round((high - low) / step)
    return low, high, [(low + index * step, f"{low + index * step:g}") for index in range(count + 1)]


def _positives(page: Page) -> str:
    """How many queries an object of each class gets in a layer."""
    first, names = page.runs[0], page.class_names
    columns = {group: _padded(values, len(names)) for group, values in first.positives.items()}
    head = "<th>class</th><th>objects</th>" + "".join(f"<th>{escape(group)}</th>" for group in columns)
    counts = np.bincount(first.objects.label, minlength=len(names))
    rows = "".join(
        f'<tr><td class="name">{escape(name)}</td><td>{counts[index]:,}</td>'
        + "".join(f"<td>{_number(values[index], 2)}</td>" for values in columns.values())
        + "</tr>"
        for index, name in enumerate(names)
    )
    table = f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
    if len(names) > _MOST_ROWS:
        table = f"<details><summary>{len(names)} classes</summary>{table}</details>"
    return (
        '<section id="positives"><h2>Queries by class and group</h2><p class="soft">How many queries an object gets in '
        f'a layer of {escape(first.name)}, on average over training.</p><div class="card">{table}</div></section>'
    )


def _padded(values: Numbers, count: int) -> list[float]:
    return [float(value) for value in np.pad(values, (0, max(0, count - len(values))), constant_values=np.nan)[:count]]


def _hardness(objects: Objects) -> Numbers:
    return np.where(np.isfinite(objects.cost), objects.cost, -np.inf)


def _restlessness(objects: Objects) -> Numbers:
    """Objects seen once or twice have not had the time."""
    return np.where(objects.visits > 1, objects.unrest, -1.0)


def _objects(page: Page, key: str, title: str, order: Numbers) -> str:
    """The first objects of an order."""
    objects = page.runs[0].objects
    figures = []
    for row in np.argsort(order, kind="stable"):
        record = page.records.get(int(objects.image_id[row]))
        box = None if record is None else _box_of(record, int(objects.annotation[row]))
        if record is None or box is None:
            continue
        name = _name(page, int(objects.label[row]))
        boxes: list[Any] = [(box, "truth", "")]
        if np.isfinite(objects.box[row]).all():
            good = objects.iou[row] >= 0.5
            boxes.append((objects.box[row].tolist(), "right" if good else "wrong", f"{objects.score[row]:.2f}"))
        caption = (
            f'<b>{escape(name)}</b> <span class="chip">annotation {objects.annotation[row]}</span><br>'
            f'<span class="soft">cost {_number(objects.cost[row], 2)}, price {_number(objects.price[row], 2)}, IoU '
            f"{_number(objects.iou[row], 2)}; changed {_percent(objects.unrest[row])}, {_since(objects.settled[row])}"
            "</span>"
        )
        figures.append(figure(Picture(record, boxes, caption, f"{name}, annotation {objects.annotation[row]}")))
        if len(figures) == SHOWN:
            break
    explained = {
        "hardest": "Those whose match in the last layer cost most.",
        "restless": "Those whose query changed most often, from layer to layer and from epoch to epoch.",
    }[key]
    return (
        f'<section id="{key}" class="pictures"><h2>{title}{_of_first(page)}</h2><p class="soft">{explained} Dashed '
        "white: annotated. Green or orange: the mean matched prediction, which overlaps it by half or does not, with "
        f'its score for the class.</p><div class="examples">{"".join(figures)}</div></section>'
        if figures
        else ""
    )


def _since(settled: int) -> str:
    return "never stable" if settled < 0 else f"first stable at visit {settled + 1}"


def _of_first(page: Page) -> str:
    return f" of {escape(page.runs[0].name)}" if len(page.runs) > 1 else ""


def _name(page: Page, label: int) -> str:
    return page.class_names[label] if label < len(page.class_names) else str(label)


def _box_of(record: Mapping[str, Any], annotation: int) -> Sequence[float] | None:
    return next((a["bbox"] for a in record["annotations"] if a.get("id") == annotation), None)


def _suspects(page: Page) -> str:
    parts = []
    for kind, (title, note) in _KINDS.items():
        found = [each for each in page.suspects.get(kind, ()) if each.image_id in page.records]
        figures = "".join(figure(_suspected(page, each)) for each in found[:SHOWN])
        body = f'<div class="examples">{figures}</div>' if figures else "<p>None.</p>"
        parts.append(f'<div class="pictures" id="{kind}"><h3>{title}</h3><p class="soft">{note}</p>{body}</div>')
    return (
        f'<section id="suspects"><h2>Suspected label errors{_of_first(page)}</h2><p class="soft">Ranked by price: by '
        "what the training would have saved without the error. A model that has not learned an object yet suspects "
        f"it wrongly; look before you change anything.</p>{''.join(parts)}</section>"
    )


def _suspected(page: Page, suspect: Suspect) -> Picture:
    record = page.records[suspect.image_id]
    annotation = next((a for a in record["annotations"] if a.get("id") == suspect.annotation), None)
    said = "" if annotation is None else _name(page, annotation["category_id"])
    should = _name(page, suspect.label)
    boxes: list[Any] = []
    if suspect.kind == "missing":
        boxes = [(suspect.box, "wrong", "")]
        boxes += [(a["bbox"], "truth", "") for a in record["annotations"] if _near(a["bbox"], suspect.box)]
    elif annotation is not None:
        boxes = [(annotation["bbox"], "truth", "")]
        if suspect.kind == "doubled":
            others = [a["bbox"] for a in record["annotations"] if a is not annotation]
            boxes += [(box, "other", "") for box in others if _near(box, annotation["bbox"])]
        elif suspect.kind == "displaced":
            boxes.append((suspect.box, "wrong", ""))
    what = f"{escape(said)}, rather {escape(should)}" if suspect.kind == "wrong_class" else escape(said or should)
    where = f"annotation {suspect.annotation}" if suspect.annotation is not None else f"image {suspect.image_id}"
    caption = f'<b>{what}</b> <span class="chip">{where}</span><br><span class="soft">price {suspect.price:.2f}</span>'
    return Picture(record, boxes, caption, f"{suspect.kind.replace('_', ' ')}: {said or should}")


def _near(box: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (XYXY) overlap."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _data(page: Page) -> str:
    """The figures for programs."""

    def finite(values: Numbers) -> list[float | None]:
        return [None if math.isnan(value) else round(float(value), 6) for value in values]

    runs = [
        {"name": run.name, "epochs": {name: finite(values) for name, values in run.epochs.__dict__.items()}}
        for run in page.runs
    ]
    suspects = {
        kind: [
            {"price": round(each.price, 4), "image_id": each.image_id, "annotation": each.annotation, "box": each.box}
            for each in found[:200]
        ]
        for kind, found in page.suspects.items()
    }
    text = json.dumps({"runs": runs, "suspects": suspects}).replace("<", "\\u003c")
    return f'<script type="application/json" id="figures">{text}</script>'

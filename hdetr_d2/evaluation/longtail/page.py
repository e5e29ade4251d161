"""The long-tail report as one HTML page that needs nothing else: pictures inside it, no script, no network."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..ground_truth import FREQUENCIES
from .charts import grouped_bars
from .examples import Example
from .figures import ClassFigures, LongTailFigures
from .sections import (
    GROUP_NAMES,
    STYLES,
    calibration_section,
    chip,
    confusion_section,
    number,
    rank_section,
)
from .style import CSS

_TILES = ("AP", "APr", "APc", "APf")
_MOST_CHANGED = 10
_LETTER = 11  # width of one on a picture, in its pixels


@dataclass(frozen=True)
class Page:
    """What the report shows.

    Args:
        runs: one or two, of the same dataset; the second is compared with the first.
        dataset: what the page calls it.
        num_images: evaluated.
        best, worst: classes of the first run.
        examples: by category id.
    """

    runs: Sequence[LongTailFigures]
    dataset: str
    num_images: int
    best: Sequence[ClassFigures]
    worst: Sequence[ClassFigures]
    examples: Mapping[int, Example]


def render(page: Page) -> str:
    """The page.

    Raises:
        ValueError: there is no run, or more than two.
    """
    if not 1 <= len(page.runs) <= 2:
        raise ValueError(f"a report shows one or two runs, not {len(page.runs)}")
    names = " against ".join(run.name for run in page.runs)
    sections = [
        _header(page),
        _metrics_section(page.runs),
        rank_section(page.runs),
        confusion_section(page.runs),
        calibration_section(page.runs),
        _changes_section(page.runs) if len(page.runs) == 2 else "",
        _examples_section(page, page.best, "The ten best classes"),
        _examples_section(page, page.worst, "The ten worst classes"),
        _classes_section(page.runs),
        _data(page),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>Long-tail report: {escape(names)}</title><style>{CSS}</style></head>\n'
        f"<body><main>\n{chr(10).join(section for section in sections if section)}\n</main></body></html>\n"
    )


def _header(page: Page) -> str:
    first = page.runs[0]
    groups = [sum(each.group == group for each in first.classes) for group in FREQUENCIES]
    seen = [sum(each.group == group and each.objects > 0 for each in first.classes) for group in FREQUENCIES]
    objects = sum(each.objects for each in first.classes)
    names = " against ".join(
        f'<span class="{STYLES[index]}t">{escape(run.name)}</span>' for index, run in enumerate(page.runs)
    )
    parts = ", ".join(
        f"{here} of {count} {GROUP_NAMES[group]}" for group, here, count in zip(FREQUENCIES, seen, groups)
    )
    return (
        f"<header><h1>Long-tail report: {names}</h1>"
        f'<p class="soft">{escape(page.dataset)}: {page.num_images:,} images with {objects:,} objects. '
        f"Classes with objects to find: {parts}.</p></header>"
    )


def _metrics_section(runs: Sequence[LongTailFigures]) -> str:
    tiles = "".join(_tile(name, [run.metrics[name] for run in runs]) for name in _TILES)
    names = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs) + ("<th>change</th>" if len(runs) == 2 else "")
    rows = []
    for name in names:
        values = [run.metrics[name] for run in runs]
        cells = "".join(
            f'<td data-metric="{name}" data-run="{index}">{number(value)}</td>' for index, value in enumerate(values)
        )
        rows.append(f"<tr><td>{name}</td>{cells}{_change_cell(values)}</tr>")
    bars = grouped_bars(
        "AP by frequency group",
        ["all", *(GROUP_NAMES[group] for group in FREQUENCIES)],
        [(run.name, STYLES[index], [run.metrics[name] for name in _TILES]) for index, run in enumerate(runs)],
        y_label="AP (%)",
    )
    return (
        f'<section id="metrics"><div class="tiles">{tiles}</div><div class="grid">'
        f'<div class="card"><h3>AP by frequency group</h3>{bars}</div>'
        f'<div class="card"><h3>All metrics, in percent</h3><div class="scroll"><table><tr><th>metric</th>{head}</tr>'
        f"{''.join(rows)}</table></div></div></div>"
        '<p class="note">As LVIS defines them. Rare classes are in at most 10 training images, common ones in at most '
        "100. AR counts the best detections of an image.</p></section>"
    )


def _tile(name: str, values: Sequence[float]) -> str:
    label = {"AP": "AP, all classes"} | {f"AP{group}": f"AP, {GROUP_NAMES[group]}" for group in FREQUENCIES}
    style = [f' class="{STYLES[index]}t"' if len(values) > 1 else "" for index in range(len(values))]
    numbers = "".join(f"<span{kind}>{number(value, 1)}</span>" for kind, value in zip(style, values))
    change = f'<span class="delta {_direction(values)}">{_signed(values)}</span>' if len(values) == 2 else ""
    return f'<div class="tile"><b>{label[name]}</b>{numbers}{change}</div>'


def _signed(values: Sequence[float]) -> str:
    change = values[1] - values[0]
    return "-" if math.isnan(change) else f"{change:+.2f}"


def _direction(values: Sequence[float]) -> str:
    change = values[1] - values[0]
    return "up" if change > 0.005 else "down" if change < -0.005 else "soft"


def _change_cell(values: Sequence[float]) -> str:
    return f'<td class="{_direction(values)}">{_signed(values)}</td>' if len(values) == 2 else ""


def _changes_section(runs: Sequence[LongTailFigures]) -> str:
    """The classes of which the AP of two runs differs most."""
    other = {each.category_id: each for each in runs[1].classes}
    both = [(each, other[each.category_id]) for each in runs[0].classes if not math.isnan(each.ap)]
    both = [pair for pair in both if not math.isnan(pair[1].ap)]
    ordered = sorted(both, key=lambda pair: pair[1].ap - pair[0].ap)
    lost = [pair for pair in ordered[:_MOST_CHANGED] if pair[1].ap < pair[0].ap]
    gained = [pair for pair in ordered[: -_MOST_CHANGED - 1 : -1] if pair[1].ap > pair[0].ap]
    head = "<tr><th>class</th>" + "".join(
        f'<th class="{STYLES[index]}t">{escape(run.name)}</th>' for index, run in enumerate(runs)
    )
    tables = []
    for title, pairs in ((f"Better with {runs[1].name}", gained), (f"Worse with {runs[1].name}", lost)):
        rows = "".join(
            f'<tr><td class="name">{escape(first.name)} {chip(first.group)} '
            f'<span class="soft">{_objects(first)}</span></td>'
            f"<td>{number(first.ap)}</td><td>{number(second.ap)}</td>"
            f"{_change_cell([first.ap, second.ap])}</tr>"
            for first, second in pairs
        )
        body = f'<div class="scroll"><table>{head}<th>change</th></tr>{rows}</table></div>' if rows else "<p>None.</p>"
        tables.append(f'<div class="card"><h3>{escape(title)}</h3>{body}</div>')
    return (
        '<section id="changes"><h2>Classes that changed most</h2><p class="soft">A class with few objects changes much '
        f'by chance.</p><div class="grid">{"".join(tables)}</div></section>'
    )


def _examples_section(page: Page, classes: Sequence[ClassFigures], title: str) -> str:
    figures = "".join(
        _figure(each, page.examples[each.category_id], page.runs)
        for each in classes
        if each.category_id in page.examples
    )
    if not figures:
        return ""
    of_run = f" of {page.runs[0].name}" if len(page.runs) > 1 else ""
    key = (
        "Dashed white: annotated. Green: right. Orange: wrong. Violet: what an object that was missed is called "
        "instead." + (" The upper picture is the first run, the lower one the second." if len(page.runs) > 1 else "")
    )
    return (
        f'<section class="pictures"><h2>{escape(title + of_run)}</h2><p class="soft">{key}</p>'
        f'<div class="examples">{figures}</div></section>'
    )


def _figure(of: ClassFigures, example: Example, runs: Sequence[LongTailFigures]) -> str:
    pictures = "".join(_picture(of.name, example, index) for index in range(len(example.found)))
    by_run = [next(each for each in run.classes if each.category_id == of.category_id).ap for run in runs]
    ap = ", ".join(f'<span class="{STYLES[index]}t">{number(value)}</span>' for index, value in enumerate(by_run))
    return (
        f'<figure class="card">{pictures}<figcaption><b>{escape(of.name)}</b> '
        f'{chip(of.group)}<br><span class="soft">AP {ap}; {_objects(of)}, '
        f"{_plural(of.images, 'training image')}</span></figcaption></figure>"
    )


def _objects(of: ClassFigures) -> str:
    return _plural(of.objects, "object")


def _plural(count: int, what: str) -> str:
    return f"{count:,}\u00a0{what}{'' if count == 1 else 's'}"


def _picture(name: str, example: Example, run: int) -> str:
    parts = []
    if example.jpeg is not None:
        parts.append(
            f'<image width="{example.width}" height="{example.height}" href="data:image/jpeg;base64,{example.jpeg}"/>'
        )
    parts += [_box(box, "truth") for box in example.objects]
    for each in example.found[run]:
        kind = "right" if each.correct else "wrong" if each.other_class is None else "other"
        text = f"{each.score:.2f}" if each.other_class is None else f"{each.other_class} {each.score:.2f}"
        x = min(max(each.box[0] + 3, 2), max(2, example.width - _LETTER * len(text)))
        y = min(max(each.box[1] + 17, 17), example.height - 4)
        parts.append(_box(each.box, kind) + f'<text class="tag {kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
    label = escape(f"An image with {name}: {len(example.objects)} annotated, {len(example.found[run])} boxes found")
    return f'<svg viewBox="0 0 {example.width} {example.height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _box(box: Sequence[float], kind: str) -> str:
    x, y, width, height = box
    return f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'


def _classes_section(runs: Sequence[LongTailFigures]) -> str:
    """Everything about every class, folded."""
    others = [{each.category_id: each for each in run.classes} for run in runs]
    counted = any(each.one_to_one is not None for run in runs for each in run.classes)
    head = "<tr><th>class</th><th>group</th><th>training images</th><th>objects</th>"
    for index, run in enumerate(runs):
        style, name = f"{STYLES[index]}t", escape(run.name)
        head += f'<th class="{style}">AP {name}</th>'
        if counted:
            head += f'<th class="{style}">one-to-one</th><th class="{style}">one-to-many</th>'
    rows = []
    for each in runs[0].classes:
        cells = ""
        for index, classes in enumerate(others):
            here = classes[each.category_id]
            cells += f'<td data-class="{each.category_id}" data-run="{index}">{number(here.ap)}</td>'
            if counted:
                cells += "".join(
                    f"<td>{'-' if count is None else f'{count:,}'}</td>"
                    for count in (here.one_to_one, here.one_to_many)
                )
        rows.append(
            f'<tr><td class="name">{escape(each.name)}</td><td>{GROUP_NAMES[each.group]}</td><td>{each.images:,}</td>'
            f"<td>{each.objects}</td>{cells}</tr>"
        )
    return (
        f'<section id="classes"><h2>All classes</h2><details><summary>{len(rows)} classes, the most frequent first'
        f'</summary><div class="scroll"><table>{head}</tr>{"".join(rows)}</table></div></details></section>'
    )


def _data(page: Page) -> str:
    """The figures for programs."""

    def finite(value: float) -> float | None:
        return None if math.isnan(value) else value

    runs = [
        {
            "name": run.name,
            "metrics": {name: finite(value) for name, value in run.metrics.items()},
            "class_ap": {str(each.category_id): finite(each.ap) for each in run.classes},
        }
        for run in page.runs
    ]
    text = json.dumps({"runs": runs}).replace("<", "\\u003c")
    return f'<script type="application/json" id="figures">{text}</script>'

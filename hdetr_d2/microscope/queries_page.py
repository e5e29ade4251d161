"""The queries of a model in one image, as an HTML page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from hdetr_d2.evaluation.longtail.style import CSS

from .queries import LookedAt, Match, Numbers, repeated

_LONG_SIDE = 480  # pixels of a picture
_LETTER = 10.5
_LEVELS = ("#ffd166", "#4cc9f0", "#f72585", "#80ed99", "#b892ff", "#ff9f1c")
_LEAST = 0.002
"""Part of a query's attention below which a point is not drawn."""

_OWN_CSS = """
.shots { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.shots figure { margin: 0; } .shots figcaption { font-size: .86rem; overflow-wrap: anywhere; margin-top: 6px; }
.shots svg { width: 100%; height: auto; background: #39424f; border-radius: 6px; display: block; }
.box.start { stroke: #fff; stroke-dasharray: 2 3; stroke-width: 1.5; } .box.way { stroke: #fff; stroke-opacity: .5;
  stroke-width: 1; } .box.repeat { stroke: #ff8a3d; stroke-width: 1.2; }
.box.kept { stroke: #4ade80; stroke-width: 1.2; }
.box.noised { stroke: #f0abfc; stroke-width: 1; } .tag.truth { fill: #fff; }
.dots { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0 10px; }
.key i.dot { border: 0; width: 10px; height: 10px; border-radius: 5px; vertical-align: -1px; margin: 0 5px 0 0; }
#matches .grid { align-items: start; } #matches th { white-space: normal; vertical-align: bottom; }
"""


def render(looked: LookedAt, name: str, *, number: int, distinct: float) -> str:
    """The page.

    Args:
        looked: what the queries do.
        name: of the image.
        number: of queries, those of the best scores.
        distinct: IoU above which a proposal repeats a better one.
    """
    picture = _Picture(looked)
    sections = [
        f'<header><h1>Queries in {escape(name)}</h1><p class="soft">{looked.boxes.shape[1]} queries, '
        f"{looked.boxes.shape[0]} decoder layers.</p></header>",
        _queries(looked, picture, number),
        _proposals(looked, picture, distinct),
        _matches(looked, picture),
        _noised(looked, picture),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>Queries: {escape(name)}</title><style>{CSS}{_OWN_CSS}</style></head>\n'
        f"<body><main>\n{chr(10).join(section for section in sections if section)}\n</main></body></html>\n"
    )


class _Picture:
    """The image, on which boxes and points are drawn."""

    def __init__(self, looked: LookedAt) -> None:
        height, width = looked.pixels.shape[:2]
        self.scale = _LONG_SIDE / max(height, width)
        self.width, self.height = max(1, round(width * self.scale)), max(1, round(height * self.scale))
        file = io.BytesIO()
        Image.fromarray(looked.pixels).resize((self.width, self.height), Image.Resampling.BICUBIC).save(
            file, "JPEG", quality=80
        )
        self._data = base64.b64encode(file.getvalue()).decode()

    def svg(self, label: str, parts: Sequence[str]) -> str:
        """The image with what is drawn on it."""
        image = f'<image width="{self.width}" height="{self.height}" href="data:image/jpeg;base64,{self._data}"/>'
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">'
            f"{image}{''.join(parts)}</svg>"
        )

    def box(self, box: Sequence[float] | Numbers, style: str, text: str = "") -> str:
        """A box in pixels of the image, and a word on it; the edges of what goes beyond the image are at its border."""
        ends = (self.width, self.height) * 2
        x0, y0, x1, y1 = (min(max(float(side) * self.scale, 1.0), end - 1.0) for side, end in zip(box, ends))
        drawn = (
            f'<rect class="box {style}" x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0):.1f}" '
            f'height="{max(y1 - y0, 0):.1f}"/>'
        )
        if not text:
            return drawn
        x = min(max(x0 + 3, 2), max(2.0, self.width - _LETTER * len(text)))
        y = min(max(y0 + 17, 17), self.height - 4)
        return drawn + f'<text class="tag {style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'

    def point(self, point: Numbers, weight: float, most: float) -> str:
        """A sampling point, the larger the more attention it has."""
        radius = 1.0 + 5.0 * (weight / most) ** 0.5
        colour = _LEVELS[int(point[2]) % len(_LEVELS)]
        place = f'cx="{point[0] * self.scale:.1f}" cy="{point[1] * self.scale:.1f}" r="{radius:.1f}"'
        return f'<circle {place} fill="{colour}" fill-opacity=".75" stroke="#000" stroke-width=".5"/>'


def _best(looked: LookedAt, number: int) -> list[int]:
    order: list[int] = np.argsort(-looked.scores.max(1), kind="stable")[:number].tolist()
    return order


def _name(looked: LookedAt, label: int) -> str:
    return looked.class_names[label] if label < len(looked.class_names) else str(label)


def _queries(looked: LookedAt, picture: _Picture, number: int) -> str:
    """The best queries: their boxes in all layers and where they look."""
    figures = []
    for query in _best(looked, number):
        label, score = int(looked.scores[query].argmax()), float(looked.scores[query].max())
        parts = []
        if looked.reference is not None:
            parts.append(picture.box(looked.reference[query], "start"))
        parts += [picture.box(box, "way") for box in looked.boxes[:-1, query]]
        parts.append(picture.box(looked.boxes[-1, query], "right", f"{_name(looked, label)} {score:.2f}"))
        if looked.points is not None and looked.weights is not None:
            weights = looked.weights[query]
            most = max(float(weights.max()), 1e-9)
            shown = np.flatnonzero(weights > _LEAST)
            parts += [picture.point(looked.points[query, i], float(weights[i]), most) for i in shown.tolist()]
        caption = f"<b>query {query}</b>: {escape(_name(looked, label))} {score:.2f}{_attention(looked, query)}"
        figures.append(
            f'<figure class="card">{picture.svg(f"query {query}", parts)}<figcaption>{caption}</figcaption></figure>'
        )
    levels = "" if looked.points is None else f'<p class="dots soft">{_legend(looked.points)}</p>'
    look = "" if looked.points is None else " Dots: where the last layer looks, the larger the more attention."
    start = "" if looked.reference is None else " Dotted: where it begins."
    return (
        f'<section id="queries"><h2>The best queries</h2><p class="soft">Green: what it detects.{start} White: its '
        f'boxes in the layers before.{look}</p>{levels}<div class="shots">{"".join(figures)}</div></section>'
    )


def _attention(looked: LookedAt, query: int) -> str:
    """How much of it goes to each level."""
    if looked.points is None or looked.weights is None:
        return ""
    parts = np.bincount(looked.points[query, :, 2].astype(int), weights=looked.weights[query])
    return f'<br><span class="soft">by level: {", ".join(f"{100 * part:.0f} %" for part in parts)}</span>'


def _legend(points: Numbers) -> str:
    dots = [f'<i class="dot" style="background:{colour}"></i>' for colour in _LEVELS]
    count = int(points[..., 2].max()) + 1
    return " ".join(f'<span class="key">{dots[level % len(dots)]}level {level + 1}</span>' for level in range(count))


def _proposals(looked: LookedAt, picture: _Picture, distinct: float) -> str:
    """Where the queries of a two-stage model begin."""
    if looked.reference is None or not looked.are_proposals:
        return ""
    repeats = repeated(looked.reference, distinct)
    kinds = ("kept", "Stand for themselves"), ("repeat", f"Overlap a better one by more than {distinct:g} (IoU)")
    figures = []
    for style, text in kinds:
        chosen = [box for box, repeat in zip(looked.reference, repeats) if repeat == (style == "repeat")]
        drawn = picture.svg(f"proposals, {text}", [picture.box(box, style) for box in chosen])
        caption = f"{text}: <b>{len(chosen)}</b>"
        figures.append(f'<figure class="card">{drawn}<figcaption>{caption}</figcaption></figure>')
    return (
        f'<section id="proposals"><h2>Proposals</h2><p class="soft">The {len(repeats)} queries begin here. Distinct '
        f'queries would put those that overlap a better one behind all others.</p><div class="shots">'
        f"{''.join(figures)}</div></section>"
    )


def _matches(looked: LookedAt, picture: _Picture) -> str:
    """Which query each annotation is matched with."""
    if not looked.matches:
        return ""
    parts = [picture.box(looked.boxes[-1, match.query], "right") for match in looked.matches]
    parts += [picture.box(match.box, "truth", str(number)) for number, match in enumerate(looked.matches, start=1)]
    rows = "".join(_row(looked, number, match) for number, match in enumerate(looked.matches, start=1))
    return (
        '<section id="matches"><h2>Matches</h2><p class="soft">Dashed white: annotated. Green: the last layer\'s '
        "predictions that one-to-one matching gives them.</p>"
        f'<div class="grid two"><div class="shots"><figure class="card">{picture.svg("matches", parts)}</figure></div>'
        '<div class="card"><div class="scroll"><table><tr><th>annotated</th><th>query</th><th>score</th><th>cost</th>'
        f"<th>price of one more</th></tr>{rows}</table></div></div></div></section>"
    )


def _row(looked: LookedAt, number: int, match: Match) -> str:
    score = looked.scores[match.query, match.label]
    price = f"{match.price:.2f}" if np.isfinite(match.price) else "-"
    return (
        f'<tr><td class="name">{number}: {escape(_name(looked, match.label))}</td><td>{match.query}</td>'
        f"<td>{score:.2f}</td><td>{match.cost:.2f}</td><td>{price}</td></tr>"
    )


def _noised(looked: LookedAt, picture: _Picture) -> str:
    """Where denoising begins."""
    if looked.noised is None:
        return ""
    parts = [picture.box(box, "noised") for box in looked.noised]
    parts += [picture.box(match.box, "truth") for match in looked.matches]
    return (
        f'<section id="noised"><h2>Denoising</h2><p class="soft">Dashed white: annotated. Violet: {len(looked.noised)} '
        'noised boxes that training would have the decoder put right.</p><div class="shots"><figure class="card">'
        f"{picture.svg('noised boxes', parts)}</figure></div></section>"
    )

"""Diagrams as inline SVG, without script: their colours are those of the page's style sheet, light or dark.

All are drawn on 420 x 260 units, so that their text stays readable on a phone, which shows them at nearly that size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 14, 38


@dataclass(frozen=True)
class Series:
    """Points with a name.

    Args:
        name: in the legend.
        style: class of the style sheet: "s0" is the first run, "s1" the second.
        x, y: of the points; NaN leaves one out.
        titles: what a point says when it is pointed at.
        dashed: another kind of the same run.
    """

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    titles: Sequence[str] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """A named part of the horizontal axis."""

    name: str
    start: float
    end: float


class Frame:
    """Axes, and the places of values between them.

    Args:
        x_range, y_range: the values at the ends.
        x_label, y_label: beside the axes.
        log_y: the vertical axis shows log10(1 + y).
    """

    def __init__(
        self,
        *,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        x_label: str,
        y_label: str,
        log_y: bool = False,
    ) -> None:
        self.x_range, self.y_range = x_range, y_range
        self.x_label, self.y_label = x_label, y_label
        self._scale: Callable[[float], float] = (lambda v: math.log10(1 + v)) if log_y else (lambda v: v)

    def x(self, value: float) -> float:
        """Where a value is, in units from the left."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Where a value is, in units from the top."""
        low, high = (self._scale(end) for end in self.y_range)
        return HEIGHT - _BOTTOM - (self._scale(value) - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> str:
        """Grid, numbers and labels."""
        parts = []
        for value, text in y_ticks:
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        for value, text in x_ticks:
            place = f'x="{self.x(value):.1f}" y="{HEIGHT - _BOTTOM + 15}"'
            parts.append(f'<text class="tick" {place} text-anchor="middle">{escape(text)}</text>')
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(
            f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{escape(self.x_label)}</text>"
            f'<text class="label" transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y_label)}</text>"
        )
        return "".join(parts)

    def bands(self, bands: Sequence[Band]) -> str:
        """Every other part shaded, and their names on top."""
        parts = []
        for index, band in enumerate(bands):
            start, end = self.x(band.start), self.x(band.end)
            if index % 2:
                place = f'x="{start:.1f}" y="{_TOP}" width="{end - start:.1f}" height="{HEIGHT - _TOP - _BOTTOM}"'
                parts.append(f'<rect class="band" {place}/>')
            middle = (start + end) / 2
            anchor, at = ("middle", middle) if end - start > 44 else ("start", start) if index == 0 else ("end", end)
            parts.append(
                f'<text class="tick" x="{at:.1f}" y="{_TOP - 3}" text-anchor="{anchor}">{escape(band.name)}</text>'
            )
        return "".join(parts)

    def points(self, series: Series, radius: float) -> str:
        """A dot for every point."""
        parts = []
        for index, (x, y) in enumerate(zip(series.x, series.y)):
            if math.isnan(y):
                continue
            title = f"<title>{escape(series.titles[index])}</title>" if series.titles else ""
            kind = " hollow" if series.dashed else ""
            place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"'
            parts.append(f'<circle class="dot {series.style}{kind}" {place}>{title}</circle>')
        return "".join(parts)

    def line(self, series: Series) -> str:
        """The points connected."""
        places = [f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(series.x, series.y) if not math.isnan(y)]
        dashes = " dashed" if series.dashed else ""
        return f'<polyline class="line {series.style}{dashes}" points="{" ".join(places)}"/>' if places else ""


def svg(title: str, *content: str, legend: Sequence[tuple[str, str, bool]] = ()) -> str:
    """A diagram with its legend.

    Args:
        title: what it shows, for readers who do not see it.
        content: elements.
        legend: (name, style, dashed) of the series.
    """
    keys = "".join(
        f'<span class="key"><i class="{style}{" dashed" if dashed else ""}"></i>{escape(name)}</span>'
        for name, style, dashed in legend
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(content)}</svg>" + (f'<div class="legend">{keys}</div>' if keys else "")
    )


def grouped_bars(
    title: str,
    groups: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float]]],
    *,
    y_label: str,
    digits: int = 1,
) -> str:
    """Bars side by side, with their values on top.

    Args:
        title: what they show.
        groups: below the axis.
        series: (name, style, value of each group); NaN has no bar.
        y_label: beside the axis.
        digits: of the values on top, after the point.
    """
    highest = max([value for _, _, values in series for value in values if not math.isnan(value)], default=0.0)
    top, ticks = nice_ticks(highest * 1.08)
    frame = Frame(x_range=(0, len(groups)), y_range=(0, top), x_label="", y_label=y_label)
    width = 0.76 / len(series)
    parts = [frame.axes([(index + 0.5, name) for index, name in enumerate(groups)], ticks)]
    for position, (name, style, values) in enumerate(series):
        for index, value in enumerate(values):
            left = frame.x(index + 0.12 + position * width)
            right = frame.x(index + 0.12 + (position + 1) * width) - 2
            middle = (left + right) / 2
            if math.isnan(value):
                parts.append(f'<text class="value" x="{middle:.1f}" y="{frame.y(0) - 4:.1f}">-</text>')
                continue
            y = frame.y(value)
            parts.append(
                f'<rect class="bar {style}" x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" rx="2" '
                f'height="{max(frame.y(0) - y, 0.5):.1f}"><title>{escape(f"{name}, {groups[index]}: {value:.2f}")}'
                f'</title></rect><text class="value" x="{middle:.1f}" y="{y - 4:.1f}">{value:.{digits}f}</text>'
            )
    legend = [(name, style, False) for name, style, _ in series] if len(series) > 1 else []
    return svg(title, *parts, legend=legend)


def nice_ticks(highest: float) -> tuple[float, list[tuple[float, str]]]:
    """The end of an axis from 0, and about five round numbers on it."""
    highest = highest if highest > 0 else 1.0
    step = 10 ** math.floor(math.log10(highest / 4))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if highest / (step * factor) <= 5)
    count = math.ceil(highest / step)
    return count * step, [(index * step, f"{index * step:g}") for index in range(count + 1)]


def log_ticks(highest: float) -> tuple[float, list[tuple[float, str]]]:
    """The end of a logarithmic axis from 0, and powers of ten on it."""
    top = max(1, math.ceil(math.log10(1 + max(highest, 1))))
    step = math.ceil(top / 6)
    ticks = [(0.0, "0")] + [(10.0**power, short_number(10.0**power)) for power in range(step, top + 1, step)]
    return 10.0**top, ticks


def short_number(number: float) -> str:
    """12345 as 12k, for axes and narrow tables."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"

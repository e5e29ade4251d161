"""Whether one way of training is better than another: paired differences over seeds and images, with intervals.

Two rows of a comparison are compared seed by seed, on the same validation images. An interval holds 95 % of what the
difference may be with other seeds and other images: seeds are drawn anew from those there are, with the spread of few
widened to that of Student's distribution, and images from those of the validation set (a bootstrap of both, of a fixed
seed). A ranking puts two rows one above the other only where their interval excludes 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Numbers = NDArray[np.float64]

DRAWINGS = 400
"""Of the bootstrap."""

WANTED = 0.5
"""The difference in AP that a number of seeds is given for."""

_LEVEL = 0.95
_POWER = 0.8


@dataclass(frozen=True)
class Scores:
    """A metric of one row.

    Args:
        values: by seed, as the evaluation gave it.
        resampled: by seed, (R,) on resampled images, the same in all rows; {} where there are no detections.
        on_all: by seed, what ``resampled`` would be on the images as they are.
    """

    values: Mapping[int, float]
    resampled: Mapping[int, Numbers]
    on_all: Mapping[int, float]


@dataclass(frozen=True)
class Difference:
    """What one row is ahead of another.

    Args:
        mean: over the seeds that both have.
        low, high: of the interval; infinite where nothing tells the spread.
        seeds: how many both have.
        deviation: of a seed's difference; NaN of one seed.
        images: half of the interval that the choice of images alone gives; NaN where that is not known.
    """

    mean: float
    low: float
    high: float
    seeds: int
    deviation: float
    images: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def seeds_for(self, difference: float = WANTED) -> int | None:
        """How many seeds show a difference of this size in four of five cases; None where one seed tells nothing."""
        if math.isnan(self.deviation):
            return None
        reach = stats.norm.ppf((1 + _LEVEL) / 2) + stats.norm.ppf(_POWER)
        return max(2, math.ceil((reach * self.deviation / difference) ** 2))


def difference(one: Scores, other: Scores, *, seed: int = 0) -> Difference | None:
    """``one`` less ``other``; None where they have no seed in common."""
    shared = sorted(one.values.keys() & other.values.keys())
    if not shared:
        return None
    paired = np.array([one.values[s] - other.values[s] for s in shared])
    count, mean = len(paired), float(paired.mean())
    deviation = float(paired.std(ddof=1)) if count > 1 else math.nan
    images = _by_images(one, other, shared)
    if count == 1 and images is None:
        return Difference(mean, -math.inf, math.inf, 1, deviation, math.nan)
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = np.full(DRAWINGS if images is None else len(images), mean)
    if count > 1:
        # Drawn from n values, a mean spreads by (n - 1) / n of what it should, and n values are few to know that from.
        widened = math.sqrt(count / (count - 1)) * stats.t.ppf((1 + _LEVEL) / 2, count - 1)
        widened /= stats.norm.ppf((1 + _LEVEL) / 2)
        drawn = drawn + widened * (paired[rng.integers(count, size=(len(drawn), count))].mean(1) - mean)
    half = math.nan
    if images is not None:
        drawn = drawn + rng.permutation(images)
        half = float(np.diff(np.quantile(images, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]))[0]) / 2
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    if count > 1:
        # A few seeds have few means: their interval is no narrower than Student's.
        reach = float(stats.t.ppf((1 + _LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
        low, high = min(low, mean - reach), max(high, mean + reach)
    return Difference(mean, float(low), float(high), count, deviation, half)


def _by_images(one: Scores, other: Scores, shared: Sequence[int]) -> Numbers | None:
    """(R,) by how much the mean difference changes with the images."""
    if any(s not in one.resampled or s not in other.resampled for s in shared):
        return None
    changes = [one.resampled[s] - other.resampled[s] - (one.on_all[s] - other.on_all[s]) for s in shared]
    result: Numbers = np.mean(changes, axis=0)
    return result


def ranking(rows: Mapping[str, Scores]) -> str:
    """The rows from best to worst: ">" where all above are clearly better than all below, "=" where that is not so."""
    ordered = sorted(rows, key=lambda name: -_mean(rows[name]))
    clear = {}
    for above, below in combinations(ordered, 2):
        found = difference(rows[above], rows[below])
        clear[above, below] = found is not None and found.low > 0
    parts = [ordered[0]] if ordered else []
    for index, name in enumerate(ordered[1:], start=1):
        supported = all(clear[above, below] for above in ordered[:index] for below in ordered[index:])
        parts += [">" if supported else "=", name]
    return " ".join(parts)


def _mean(scores: Scores) -> float:
    return float(np.mean(list(scores.values.values()))) if scores.values else -math.inf


def differences_table(metric: str, rows: Mapping[str, Scores], groups: Mapping[str, Mapping[str, Scores]]) -> str:
    """Markdown: every pair of rows, the better one first, and the ranking that they support.

    Args:
        metric: what is compared.
        rows: its scores by row.
        groups: of groups of classes, the same.
    """
    names = [name for name, scores in rows.items() if scores.values]
    if len(names) < 2:
        return ""
    lines = [
        f"| {metric}: more | less | difference | {''.join(f'{group} | ' for group in groups)}seeds | "
        f"seeds for {WANTED:g} |",
        "| --- " * (5 + len(groups)) + "|",
    ]
    alone = []
    for first, second in combinations(names, 2):
        if _mean(rows[second]) > _mean(rows[first]):
            first, second = second, first
        found = difference(rows[first], rows[second])
        if found is None:
            continue
        cells = [_cell(difference(of[first], of[second])) for of in groups.values()]
        needed = found.seeds_for()
        count = "more than one tells" if needed is None else str(needed)
        lines.append(f"| {' | '.join([first, second, _cell(found), *cells, str(found.seeds), count])} |")
        alone.append(found.images)
    known = [half for half in alone if not math.isnan(half)]
    spread = f" The choice of images alone makes up to ±{max(known):.1f}." if known else ""
    notes = (
        f"Differences are of the same seeds, with intervals of 95 % over seeds{' and images' if known else ''}; a tie "
        f"is one that holds 0.{spread} The last column is how many seeds show a difference of {WANTED:g} in four of "
        "five cases."
    )
    return "\n".join([*lines, "", f"Ranking: {ranking({name: rows[name] for name in names})}", "", notes])


def _cell(found: Difference | None) -> str:
    if found is None or math.isnan(found.mean):
        return ""
    if math.isinf(found.low):
        return f"{found.mean:+.1f} (one seed)"
    tie = "" if found.is_clear else ", a tie"
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]{tie}"

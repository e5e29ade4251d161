"""Metrics as text."""

import math
from collections.abc import Mapping

from tabulate import tabulate


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One line of names and one of numbers.

    Args:
        metrics: number by name, in percent; NaN is shown as "-".
    """
    return tabulate(
        [list(map(_number, metrics.values()))],
        headers=list(metrics),
        tablefmt="pipe",
        colalign=("right",) * len(metrics),
        disable_numparse=True,  # it would write 33.70 as 33.7
    )


def per_class_table(values: Mapping[str, float], *, value_name: str = "AP", columns: int = 3) -> str:
    """A number for every class, several classes side by side.

    Args:
        values: number by class name, in percent; NaN (a class without annotations) is shown as "-".
        value_name: what the numbers are.
        columns: how many classes in one line.
    """
    cells = [cell for name, value in values.items() for cell in (name, _number(value))]
    width = 2 * max(1, min(columns, len(values)))
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return tabulate(
        rows,
        headers=["class", value_name] * (width // 2),
        tablefmt="pipe",
        colalign=("left", "right") * (width // 2),
        disable_numparse=True,  # a class may be called "1"
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"

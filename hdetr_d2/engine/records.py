"""The files of json lines that a run leaves, ``evaluations.json`` and ``metrics.json``, whole after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from hdetr_d2.output import write_atomically

Results = dict[str, Any]
"""An evaluator's results: {task: {metric: value}}."""

Record = dict[str, Any]

EVALUATIONS_FILE = "evaluations.json"
METRICS_FILE = "metrics.json"


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"bbox": {"AP": 1.0}} as {"bbox/AP": 1.0}; what is not a number is left out."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat.update(flatten_results(value, name))
        elif isinstance(value, (int, float)) or hasattr(value, "__float__"):
            flat[name] = float(value)
    return flat


def metric_value(results: Mapping[str, Any], metric: str) -> float:
    """The value of "task/metric" in an evaluation's results, -inf where there is none."""
    value = flatten_results(results).get(metric, float("-inf"))
    return value if value == value else float("-inf")  # NaN: a dataset without objects of that kind


def json_values(value: Any) -> Any:
    """Numpy's numbers as Python's; NaN, the metric of what no object belongs to, as None, which json has."""
    if isinstance(value, Mapping):
        return {str(key): json_values(inner) for key, inner in value.items()}
    if isinstance(value, (int, str)) or value is None:
        return value
    number = float(value)
    return None if number != number else number


def read_evaluations(path: str) -> list[Record]:
    """The records {"iteration": steps done, "results": ...} in an ``evaluations.json``; none if there is no file."""
    return [record for record in read_records(path) if isinstance(record.get("results"), dict)]


def read_records(path: str) -> list[Record]:
    """The lines of a file of json lines that are whole records; none if there is no file.

    A kill may cut the last line short; so may a full disk any line.
    """
    if not os.path.isfile(path):
        return []
    records = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list
                continue
            if isinstance(record, dict) and isinstance(record.get("iteration"), int):
                records.append(record)
    return records


def write_records(path: str, records: Iterable[Record]) -> None:
    """Write a file of json lines, at once."""
    text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)

    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def keep_records_until(path: str, iteration: int) -> None:
    """Drop the records whose "iteration" is above ``iteration``, and a line cut short by a kill.

    A resumed run writes them again; without this the file would hold both.
    """
    if os.path.isfile(path):
        write_records(path, [record for record in read_records(path) if record["iteration"] <= iteration])


def mend_metrics(path: str, *, start: int, last_line: Mapping[str, Any], evaluations: Sequence[Record]) -> None:
    """Make ``metrics.json`` what it was when the steps before ``start`` were done.

    A kill can come between a checkpoint and the line of its step, or between an evaluation's record and its line; what
    such lines hold is in the checkpoint and in ``evaluations.json``.

    Args:
        start: first iteration that will run; lines of it and of later ones go.
        last_line: what the line of the checkpoint's step holds; {} where that step has none.
        evaluations: the records of ``evaluations.json``.
    """
    lines: dict[int, Record] = {}
    for record in read_records(path):
        if record["iteration"] < start:
            lines.setdefault(record["iteration"], {}).update(record)
    if last_line:
        line = lines.setdefault(last_line["iteration"], {})
        line.update({key: value for key, value in last_line.items() if key not in line})
    for record in evaluations:
        steps = record["iteration"]
        if 0 < steps <= start:
            line = lines.setdefault(steps - 1, {"iteration": steps - 1})
            line.update({k: v for k, v in flatten_results(record["results"]).items() if k not in line})
    if lines or os.path.isfile(path):
        write_records(path, [lines[iteration] for iteration in sorted(lines)])

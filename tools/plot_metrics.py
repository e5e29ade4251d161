#!/usr/bin/env python3
"""Draws loss and AP curves of runs from their metrics.json.

Example:
    python tools/plot_metrics.py hybrid=output/hybrid one2one=output/one2one --output curves.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hdetr_d2.errors import exit_on_user_error
from hdetr_d2.evaluation.errors import ReportError
from hdetr_d2.output import writing
from hdetr_d2.visualization import plot_runs


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="output folder or metrics.json of a run, or NAME=PATH to name it")
    parser.add_argument("--output", default="metrics.png", help="picture to write (default: %(default)s)")
    parser.add_argument("--loss", default="total_loss", help="series of the left diagram (default: %(default)s)")
    return parser.parse_args()


def named(run: str) -> tuple[str, str]:
    """(name in the legend, path); the name of the folder where none is given."""
    if "=" in run and not Path(run).exists():
        name, _, path = run.partition("=")
        return name, path
    path = Path(run).resolve()
    return (path.parent if path.is_file() else path).name, run


def main() -> int:
    """Draw; the exit status."""
    arguments = parse_arguments()
    runs = dict(named(run) for run in arguments.runs)
    with exit_on_user_error("plot_metrics.py"):
        if len(runs) < len(arguments.runs):
            raise ReportError("two runs have the same name; name them as NAME=PATH")
        with writing(arguments.output) as path:
            plot_runs(runs, path, loss=arguments.loss)
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

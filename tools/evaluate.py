#!/usr/bin/env python3
"""Evaluate detections: python tools/evaluate.py --gt val.json --results detections.json [--style lvis]

The former name of ``hdetr-d2 eval``, with its former options: --gt is --annotations, --frequency-json is --train, and
the metrics are COCO's unless --style says otherwise.
"""

import sys
from collections.abc import Sequence

from hdetr_d2.cli import run

RENAMED = {"--gt": "--annotations", "--frequency-json": "--train"}


def translated(arguments: Sequence[str]) -> list[str]:
    """The arguments as ``hdetr-d2 eval`` takes them."""
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(f"{RENAMED.get(name, name)}{equals}{value}")
    return ["eval", "--style", "coco", *result]


if __name__ == "__main__":
    run(translated(sys.argv[1:]))

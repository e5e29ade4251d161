#!/usr/bin/env python3
"""Evaluate detections in COCO's result format against an annotation file.

python tools/evaluate.py --gt val.json --results output/coco_instances_results.json --style coco
"""

import argparse
import json
import logging
import math
import sys

from hdetr_d2.evaluation import BACKENDS, GroundTruthError, ResultsError, evaluate_coco
from hdetr_d2.evaluation.coco import log_metrics


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gt", required=True, help="annotation file in COCO format")
    parser.add_argument("--results", required=True, help="file with a list of detections in COCO's result format")
    parser.add_argument("--style", choices=["coco"], default="coco", help="whose metrics")
    parser.add_argument("--max-dets", type=int, default=100, help="detections per image that count (default: 100)")
    parser.add_argument("--backend", choices=["auto", *BACKENDS], default="auto", help="which program compares")
    parser.add_argument("--output", help="also write the metrics to this JSON file, in percent")
    return parser.parse_args()


def main() -> None:
    """Evaluate, and print the tables."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        metrics = evaluate_coco(args.gt, args.results, max_dets=args.max_dets, backend=args.backend)
    except (GroundTruthError, ResultsError, OSError) as error:
        raise SystemExit(f"evaluate: {error}") from None
    log_metrics(metrics["bbox"])
    if args.output:
        written = {
            kind: {name: None if math.isnan(value) else value for name, value in values.items()}
            for kind, values in metrics.items()
        }
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(written, file, indent=1)


if __name__ == "__main__":
    main()

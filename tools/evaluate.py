#!/usr/bin/env python3
"""Evaluate detections in COCO's result format against an annotation file.

python tools/evaluate.py --gt val.json --results output/inference/coco_instances_results.json
python tools/evaluate.py --gt lvis_v1_val.json --results output/inference/lvis_instances_results.json --style lvis
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Mapping

from hdetr_d2.data import read_dataset_info
from hdetr_d2.errors import exit_on_user_error
from hdetr_d2.evaluation import BACKENDS, EvaluationError, evaluate_coco, evaluate_lvis, load_ground_truth
from hdetr_d2.evaluation.metrics import Metrics, log_metrics
from hdetr_d2.output import writing


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--gt", required=True, help="annotation file in COCO or LVIS format")
    parser.add_argument("--results", required=True, help="file with a list of detections in COCO's result format")
    parser.add_argument("--style", choices=["coco", "lvis"], default="coco", help="whose metrics (default: coco)")
    parser.add_argument(
        "--max-dets",
        type=int,
        default=None,
        help="detections per image that count: per category in COCO's metrics (100), of all categories in LVIS's (300)",
    )
    parser.add_argument(
        "--backend",
        choices=["auto", *BACKENDS, "lvis"],
        default="auto",
        help="which program compares (default: the fastest that is installed); lvis is for --style lvis",
    )
    parser.add_argument("--fixed", action="store_true", help="LVIS: also AP-fixed, of the 10,000 best of every class")
    parser.add_argument(
        "--frequency-json",
        help="LVIS: training file whose classes are counted where the annotation file has no frequencies",
    )
    parser.add_argument(
        "--invalid",
        choices=["error", "drop"],
        default="error",
        help="leave faulty annotations out, as dataset.invalid=drop does in training (default: error)",
    )
    parser.add_argument("--output", help="also write the metrics to this JSON file, in percent")
    return parser.parse_args()


def evaluate(args: argparse.Namespace) -> Mapping[str, Metrics]:
    """The metrics that the command line asks for.

    Raises:
        UserError: options do not go together, or a file is wrong.
    """
    if args.style == "coco":
        if args.fixed or args.frequency_json or args.backend == "lvis":
            raise EvaluationError("--fixed, --frequency-json and --backend lvis are for --style lvis")
        max_dets = 100 if args.max_dets is None else args.max_dets
        truth = load_ground_truth(args.gt, invalid=args.invalid)
        return evaluate_coco(truth, args.results, max_dets=max_dets, backend=args.backend)
    frequencies = None
    if args.frequency_json:
        info = read_dataset_info(args.frequency_json)
        frequencies = dict(zip(info.category_ids, info.frequencies))
    return evaluate_lvis(
        load_ground_truth(args.gt, invalid=args.invalid),
        args.results,
        300 if args.max_dets is None else args.max_dets,
        fixed=args.fixed,
        frequencies=frequencies,
        backend=args.backend,
    )


def main() -> None:
    """Evaluate, and print the tables."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with exit_on_user_error("evaluate.py"):
        metrics = evaluate(args)
        log_metrics(metrics)
        if args.output:
            written = {
                task: {name: None if math.isnan(value) else value for name, value in values.items()}
                for task, values in metrics.items()
            }
            with writing(args.output) as path:
                path.write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

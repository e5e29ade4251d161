#!/usr/bin/env python3
"""Draws the images of a dataset with their annotations, and predictions beside them if given.

Examples:
    python tools/visualize_results.py --json val.json --images photos/ --output data.png
    python tools/visualize_results.py --json val.json --images photos/ --results output/inference/results.json
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from hdetr_d2.data import DatasetError, load_dataset_dicts, read_annotation_file
from hdetr_d2.visualization import comparison_sheet, load_predictions


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="annotations, COCO or LVIS format")
    parser.add_argument("--images", required=True, help="image folder")
    parser.add_argument("--results", help="predictions, COCO results format; without it only annotations are drawn")
    parser.add_argument("--output", default="visualization.png", help="picture to write (default: %(default)s)")
    parser.add_argument("--num-images", type=int, default=8, help="how many images (default: %(default)s)")
    parser.add_argument("--image-ids", type=int, nargs="+", help="these images instead of randomly chosen ones")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="lowest score drawn (default: %(default)s)")
    parser.add_argument("--columns", type=int, default=2, help="images in a row (default: %(default)s)")
    parser.add_argument("--size", type=int, default=480, help="long side of an image in the sheet, in pixels")
    return parser.parse_args()


def choose(records: list[dict], arguments: argparse.Namespace) -> list[dict]:
    """The asked images in the asked order, or a random choice in the order of the file."""
    if arguments.image_ids:
        by_id = {record["image_id"]: record for record in records}
        unknown = [identity for identity in arguments.image_ids if identity not in by_id]
        if unknown:
            raise DatasetError(f"{arguments.json}: has no images with the ids {unknown}")
        return [by_id[identity] for identity in arguments.image_ids]
    count = min(arguments.num_images, len(records))
    rows = np.random.default_rng(arguments.seed).choice(len(records), size=count, replace=False)
    return [records[row] for row in sorted(rows)]


def main() -> int:
    arguments = parse_arguments()
    try:
        # Looking at a faulty dataset is a way to find out what is wrong with it, so faults are only counted here.
        records = load_dataset_dicts(
            json_file=arguments.json, image_root=arguments.images, invalid="drop", check_files="exists"
        )
        categories = read_annotation_file(arguments.json).categories
        predictions = None
        if arguments.results:
            contiguous = {identity: index for index, identity in enumerate(categories.ids)}
            predictions = load_predictions(arguments.results, contiguous)
        sheet = comparison_sheet(
            choose(records, arguments),
            names=categories.names,
            predictions=predictions,
            score_threshold=arguments.score_threshold,
            columns=arguments.columns,
            long_side=arguments.size,
        )
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sheet.save(arguments.output)
    print(f"wrote {arguments.output} ({sheet.width} x {sheet.height})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

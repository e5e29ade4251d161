#!/usr/bin/env python3
"""Draws the images of a dataset with their annotations, and predictions beside them if given.

Examples:
    python tools/visualize_results.py --json val.json --images photos/ --output data.png
    python tools/visualize_results.py --json val.json --images photos/ --results output/inference/results.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from hdetr_d2.data import DatasetError, load_dataset_dicts, read_annotation_file
from hdetr_d2.errors import exit_on_user_error
from hdetr_d2.output import writing
from hdetr_d2.visualization import comparison_sheet, load_predictions


def at_least(lowest: int) -> Callable[[str], int]:
    """What argparse reads an integer with."""

    def integer(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is less than {lowest}")
        return value

    return integer


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="annotations, COCO or LVIS format")
    parser.add_argument("--images", required=True, help="image folder")
    parser.add_argument("--results", help="predictions, COCO results format; without it only annotations are drawn")
    parser.add_argument("--output", default="visualization.png", help="picture to write (default: %(default)s)")
    parser.add_argument("--num-images", type=at_least(1), default=8, help="how many images (default: %(default)s)")
    parser.add_argument("--image-ids", type=int, nargs="+", help="these images instead of randomly chosen ones")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the choice of images (default: %(default)s)")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="lowest score drawn (default: %(default)s)")
    parser.add_argument("--columns", type=at_least(1), default=2, help="images in a row (default: %(default)s)")
    parser.add_argument("--size", type=at_least(16), default=480, help="long side of an image in the sheet, in pixels")
    return parser.parse_args()


def choose(records: list[dict[str, Any]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
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


def draw(arguments: argparse.Namespace) -> Image.Image:
    """The sheet that the command line asks for.

    Raises:
        UserError: a file is wrong.
    """
    # Looking at a faulty dataset is a way to find out what is wrong with it, so faults are only counted here.
    records = load_dataset_dicts(
        json_file=arguments.json, image_root=arguments.images, invalid="drop", check_files="exists"
    )
    table = read_annotation_file(arguments.json)
    predictions = None
    if arguments.results:
        contiguous = {identity: index for index, identity in enumerate(table.categories.ids)}
        predictions = load_predictions(arguments.results, contiguous, image_ids=table.image_ids.tolist())
    return comparison_sheet(
        choose(records, arguments),
        names=table.categories.names,
        predictions=predictions,
        score_threshold=arguments.score_threshold,
        columns=arguments.columns,
        long_side=arguments.size,
    )


def main() -> int:
    """Draw; the exit status."""
    arguments = parse_arguments()
    with exit_on_user_error("visualize_results.py"):
        sheet = draw(arguments)
        with writing(arguments.output) as path:
            sheet.save(path)
    print(f"wrote {arguments.output} ({sheet.width} x {sheet.height})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

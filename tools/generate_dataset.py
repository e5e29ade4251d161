#!/usr/bin/env python3
"""Draws the generated dataset into the cache and prints where it lies; training does this by itself when needed."""

from __future__ import annotations

import argparse
import sys

from hdetr_d2.data import ensure_generated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-train", type=int, default=2000)
    parser.add_argument("--num-val", type=int, default=300)
    parser.add_argument("--image-size", type=int, nargs="+", default=[192], help="side, or smallest and largest side")
    parser.add_argument("--num-classes", type=int, default=20)
    parser.add_argument("--first-class", type=int, default=0, help="number of the first class in the fixed table")
    parser.add_argument("--max-objects", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long-tail", action="store_true", help="classes from frequent to rare")
    parser.add_argument("--format", choices=["coco", "lvis"], default="coco", help="of the annotations")
    parser.add_argument("--cache-folder", help="default: $HDETR_D2_CACHE or ~/.cache/hdetr_d2")
    arguments = parser.parse_args()
    if len(arguments.image_size) > 2:
        parser.error("--image-size takes one or two numbers")
    try:
        files = ensure_generated(
            num_train=arguments.num_train,
            num_val=arguments.num_val,
            image_size=(arguments.image_size[0], arguments.image_size[-1]),
            num_classes=arguments.num_classes,
            first_class=arguments.first_class,
            max_objects=arguments.max_objects,
            seed=arguments.seed,
            long_tail=arguments.long_tail,
            format=arguments.format,
            cache_folder=arguments.cache_folder,
        )
    except ValueError as error:  # of which DatasetError is one
        print(f"error: {error}", file=sys.stderr)
        return 1
    for split in ("train", "val"):
        print(f"{split}: {files.json(split)} with images in {files.images(split)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

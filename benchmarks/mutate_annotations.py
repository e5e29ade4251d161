#!/usr/bin/env python3
"""Breaks annotation files in thousands of ways, and sees whether training and evaluation say the same of each.

python benchmarks/mutate_annotations.py 8000 0

A file in COCO's or LVIS's format is changed in one to three places, as a tree or as bytes, and read by training and
evaluation, with ``dataset.invalid`` "error" and "drop". Right is either one error that names the file, in one line, the
same from both; or the same annotations from both, of which a detector that finds them all has an AP of 100. Everything
else is printed, and the exit status is 1. Training needs the sizes and names of images too, evaluation does not: files
that lack these are counted apart.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdetr_d2.data import DatasetError, load_dataset_dicts, read_dataset_info
from hdetr_d2.errors import UserError
from hdetr_d2.evaluation import GroundTruth, evaluate_coco, evaluate_lvis, load_ground_truth

Path_ = tuple[Any, ...]
NAN, INFINITY = math.nan, math.inf
LONGEST_MESSAGE = 1500
SECONDS = 5.0

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, 10**400),
    *(0.0, -0.0, 1.0, 1.5, 1e6, 1e7, 1e12, 1e300, 1e308, -1e308, 1e-308, NAN, INFINITY, -INFINITY),
    *("", "0", "1", "3", "nan", "false", "true", "abc", "r", "c", "z", "éü漢字🙂", "\ud800", "a\0b", "../../a"),
    *(
        "/etc/passwd",
        "x" * 100_000,
        [],
        {},
        [[]],
        [{}],
        {"a": 1},
        [{"a": []}],
        [1, 2, 3],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5],
    ),
    *(
        ["1", "2", "3", "4"],
        [None] * 4,
        [[1, 2, 3, 4]],
        [NAN, 1, 2, 3],
        [1, 2, INFINITY, 3],
        [1, 2, -3, 4],
        [1, 2, 0, 4],
    ),
    *([True, False, True, True], [10**400, 1, 2, 3], [1e308] * 4, [1, "2", 3, 4], [0, 0, 1e-300, 1e-300], [0, 0, 1, 1]),
    *(
        [1e300, 1, 1, 1],
        [39, 29, 3, 3],
        [7, 7],
        [3, "7"],
        [2**70],
        [[1, 2, 3, 4, 5, 6]],
        [[1, 2, 30, 2, 30, 20, 1, 20]],
    ),
    *([[1, 2, 3]], [[NAN, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, "5", 6]], {"size": [30, 40], "counts": [100, 50, 1050]}),
    *({"size": [30, 40], "counts": [100, 50]}, {"size": [30, 40], "counts": "abc"}, {"size": [0, 40], "counts": []}),
    *({"size": [30, 40], "counts": [1200]}, {"size": [30, 40], "counts": [-1, 1201]}),
]
KEYS = (
    "id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "height", "width",
    "file_name", "coco_url", "neg_category_ids", "not_exhaustive_category_ids", "frequency", "image_count",
    "name", "unheard_of",
)  # fmt: skip


def intact(style: str) -> dict[str, Any]:
    """A small file in which nothing is wrong; two annotations have an outline alone, one is a crowd, one ignored."""
    images: list[dict[str, Any]] = [{"id": i, "height": 30, "width": 40, "file_name": f"{i}.jpg"} for i in range(1, 5)]
    categories: list[dict[str, Any]] = [{"id": c, "name": f"c{c}"} for c in (1, 3, 7)]
    annotations: list[dict[str, Any]] = [
        {"id": 10 + k, "image_id": 1 + k % 4, "category_id": (1, 3, 7)[k % 3], "bbox": [2 + k, 3, 5.5, 6], "area": 33.0}
        for k in range(8)
    ]
    annotations[5]["segmentation"] = [[1, 2, 20, 2, 20, 12, 1, 12]]
    annotations[6]["segmentation"] = {"size": [30, 40], "counts": [100, 50, 1050]}
    for annotation in annotations[5:7]:
        del annotation["bbox"]
    if style == "coco":
        for annotation in annotations:
            annotation["iscrowd"] = int(annotation["id"] == 14)
        annotations[1]["ignore"] = 1
    else:
        for image in images:
            image["coco_url"] = f"http://x/images/{image.pop('file_name')}"
            image["neg_category_ids"], image["not_exhaustive_category_ids"] = [1], [3]
        for category, frequency in zip(categories, "rcf"):
            category.update(frequency=frequency, image_count=5)
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def paths(node: Any, before: Path_ = ()) -> Iterator[Path_]:
    """The places in a tree, its root left out."""
    if before:
        yield before
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from paths(value, (*before, key))


def at(node: Any, path: Path_) -> Any:
    """What is at a place."""
    for key in path:
        node = node[key]
    return node


def mutate_tree(rng: random.Random, document: dict[str, Any]) -> str:
    """Change one place; what was done."""
    places = list(paths(document))
    place = rng.choice(places)
    parent, key = at(document, place[:-1]), place[-1]
    kind = rng.choice(["set"] * 6 + ["delete", "delete", "repeat", "add", "add", "copy", "scale", "wrap"])
    value = copy.deepcopy(rng.choice(VALUES))
    if kind == "set":
        parent[key] = value
    elif kind == "delete":
        del parent[key]
    elif kind == "repeat":
        if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[f"{key} again"] = parent[key]
    elif kind == "add":
        node = at(document, place)
        if isinstance(node, dict):
            node[rng.choice(KEYS)] = value
        elif isinstance(node, list):
            node.insert(rng.randrange(len(node) + 1), value)
    elif kind == "copy":
        parent[key] = copy.deepcopy(at(document, rng.choice(places)))
    elif kind == "scale" and type(parent[key]) in (int, float):
        parent[key] *= rng.choice([-1, 0, 0.5, 2, 3, 1e3, 1e10, 1e-10])
    elif kind == "wrap":
        parent[key] = rng.choice([{"a": parent[key]}, [parent[key]], str(parent[key])])
    return f"{kind} {place} {str(value)[:40] if kind in ('set', 'add') else ''}"


BYTES_KINDS = (
    "truncate", "flip", "bom", "encoding", "no utf-8", "nest", "key twice", "behind", "cut", "insert", "other",
    "number", "key of an item twice", "key of an item twice",
)  # fmt: skip
NUMBERS = (
    b"1e400", b"-1e400", b"NaN", b"-Infinity", b"1" * 5000, b"1" * 400, b"9223372036854775808", b"0x10", b"01", b"1.",
    b"1e1", b"-0", b"5.0",
)  # fmt: skip


def mutate_bytes(rng: random.Random, text: bytes) -> tuple[bytes, str]:
    """Change bytes; what was done."""
    kind = rng.choice(BYTES_KINDS)
    data = bytearray(text)
    place = rng.randrange(len(data))
    if kind == "truncate":
        del data[place:]
    elif kind == "flip":
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "bom":
        data = bytearray(b"\xef\xbb\xbf") + data
    elif kind == "encoding":
        data = bytearray(text.decode().encode(rng.choice(["utf-16", "utf-32", "utf-16-be"])))
    elif kind == "no utf-8":
        data[place:place] = rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00"])
    elif kind == "nest":
        count = rng.choice([500, 5000, 100_000])
        opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
        nested = opening * count + (b"1" if closing == b"}" else b"") + closing * count
        data = bytearray(rng.choice([nested, text[:-1] + b', "deep": ' + nested + b"}"]))
    elif kind == "key twice":
        key, value = rng.choice([b"images", b"annotations", b"categories"]), rng.choice([b"[]", b"null", b"{}"])
        data = bytearray(text[:-1] + b', "' + key + b'": ' + value + b"}")
    elif kind == "key of an item twice":
        item = rng.choice([found.start() for found in re.finditer(rb'\{"id": ', text)])
        key = rng.choice([b"id", b"image_id", b"category_id", b"bbox", b"area", b"iscrowd", b"width", b"name"])
        value = rng.choice([*NUMBERS, b"[0, 0, 5, 5]", b"null", b'"a"'])
        data[item + 1 : item + 1] = b'"' + key + b'": ' + value + b", "
    elif kind == "behind":
        data += rng.choice([b"x", b"{}", b"\n\n", b"\x00", b"]"])
    elif kind == "cut":
        del data[place : place + rng.choice([1, 1, 5, 50])]
    elif kind == "insert":
        data[place:place] = bytes(rng.choice(b'{}[],:"0123456789eE+-.tfn\\ ') for _ in range(rng.choice([1, 1, 3])))
    elif kind == "other":
        data = bytearray(rng.choice([b"", b" ", b"null", b"[]", b"{}", b"0", b'"a"', b"NaN", text.replace(b'"', b"'")]))
    else:
        first, last = rng.choice([found.span() for found in re.finditer(rb"(?<=[ \[])-?\d+(\.\d+)?(?=[,\]}])", text)])
        data[first:last] = rng.choice(NUMBERS)
    return bytes(data), kind


def mutated(number: int, seed: int) -> tuple[str, bytes, str]:
    """Style, content and description of one file."""
    rng = random.Random(1_000_003 * seed + number)
    style = ("coco", "lvis")[number % 2]
    document = intact(style)
    if number % 5 == 4:
        return style, *mutate_bytes(rng, json.dumps(document).encode())
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        try:
            done.append(mutate_tree(rng, document))
        except (KeyError, IndexError, TypeError, OverflowError):  # of two changes, the second may find nothing left
            continue
    return style, json.dumps(document).encode(), "; ".join(done)


@dataclass(frozen=True)
class Reading:
    """What one of both made of a file: an error, or (image id, class, whether it is left out, rounded box)."""

    error: str | None
    objects: tuple[tuple[Any, ...], ...] = ()
    truth: GroundTruth | None = None


def _rounded(x: float, y: float, right: float, bottom: float, record: dict[str, Any]) -> tuple[float, ...]:
    width, height = record["width"], record["height"]
    return tuple(round(min(max(v, 0.0), limit), 6) for v, limit in zip((x, y, right, bottom), (width, height) * 2))


def by_training(path: Path, invalid: str) -> tuple[Reading, dict[int, dict[str, Any]]]:
    """Training's records, also by image id."""
    try:
        records = load_dataset_dicts(json_file=path, image_root=None, invalid=invalid)
        read_dataset_info(path)
    except UserError as error:
        return Reading(str(error)), {}
    objects = []
    for record in records:
        for annotation in record["annotations"]:
            x, y, right, bottom = annotation["bbox"]
            assert 0 <= x < right <= record["width"], annotation
            assert 0 <= y < bottom <= record["height"], annotation
            box = _rounded(x, y, right, bottom, record)
            objects.append((record["image_id"], annotation["category_id"], bool(annotation["iscrowd"]), box))
    return Reading(None, tuple(sorted(objects))), {record["image_id"]: record for record in records}


def by_evaluation(path: Path, invalid: str, records: dict[int, dict[str, Any]]) -> Reading:
    """Evaluation's annotations, clipped as training's are."""
    try:
        truth = load_ground_truth(path, invalid=invalid, amodal=False)
    except UserError as error:
        return Reading(str(error))
    found, classes = truth.annotations, list(truth.category_names)
    assert (found.areas >= 0).all()
    assert (found.boxes[:, 2:] > 0).all()
    objects = []
    for row, (image, category) in enumerate(zip(found.image_ids.tolist(), found.category_ids.tolist())):
        if image in records:
            x, y, width, height = found.boxes[row].tolist()
            box = _rounded(x, y, x + width, y + height, records[image])
            objects.append((image, classes.index(category), bool(found.crowd[row] | found.ignored[row]), box))
    return Reading(None, tuple(sorted(objects)), truth)


def require_usable(style: str, truth: GroundTruth) -> None:
    """Metrics of a detector that finds everything, and of one that finds nothing."""
    found = truth.annotations
    columns = zip(found.image_ids.tolist(), found.category_ids.tolist(), found.boxes.tolist())
    keys = ("image_id", "category_id", "bbox")
    perfect = [{**dict(zip(keys, values)), "score": 0.5} for values in columns]
    for results, expected in ((perfect, 100.0), ([], 0.0)):
        metrics = evaluate_coco(truth, results)["bbox"]
        assert math.isnan(metrics["AP"]) or abs(metrics["AP"] - expected) < 1e-6, (metrics["AP"], expected)
        if style == "lvis":
            try:
                evaluate_lvis(truth, results)
            except DatasetError as error:
                assert truth.source in str(error)  # noqa: PT017 (it may be refused, or not)


def outcome(path: Path, style: str, invalid: str) -> str:
    """What became of a file: "refused", "accepted", "accepted by evaluation alone", or what is wrong with that."""
    start = time.perf_counter()
    training, records = by_training(path, invalid)
    evaluation = by_evaluation(path, invalid, records)
    for error in (training.error, evaluation.error):
        if error is not None and str(path) not in error:
            return f"an error that does not name the file: {error[:100]}"
        if error is not None and (len(error) > LONGEST_MESSAGE or not error.isprintable()):
            return f"a message of {len(error)} characters, or unprintable ones: {error[:100]!r}"
    if evaluation.truth is not None:
        require_usable(style, evaluation.truth)
    if time.perf_counter() - start > SECONDS:
        return "slow"
    if evaluation.error is None and training.error is not None and _needs_images(training.error):
        return "accepted by evaluation alone, which needs no sizes and names of images"
    if training.error != evaluation.error:
        return f"training says {training.error or 'nothing'}, evaluation {evaluation.error or 'nothing'}"
    if training.objects != evaluation.objects:
        return f"training has {training.objects}, evaluation {evaluation.objects}"
    return "accepted" if training.error is None else "refused"


def _needs_images(error: str) -> bool:
    return '"height": None' in error or '"width": None' in error or 'neither "file_name" nor "coco_url"' in error


def run(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Try ``count`` files.

    Returns:
        How often each outcome was, and descriptions of those that are wrong.
    """
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        style, content, done = mutated(number, seed)
        path = folder / f"{style}_{number}.json"
        path.write_bytes(content)
        for invalid in ("error", "drop"):
            try:
                found = outcome(path, style, invalid)
            except Exception as error:  # whatever it is, it is what this program looks for
                found = f"{type(error).__name__}: {error}"
            right = found.startswith(("accepted", "refused"))
            counts[f"{invalid}: {found if right else 'WRONG'}"] += 1
            if not right:
                wrong.append(f"{number} {style} {invalid}: {found[:300]} [{done}]")
        path.unlink()
    return counts, wrong


def main() -> int:
    """Try them and print what was found; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=8000, help="files (default: %(default)s)")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="of the mutations (default: %(default)s)")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = run(args.count, args.seed, Path(folder))
    for text in wrong[:50]:  # with what no terminal can print
        print(text.encode("ascii", "backslashreplace").decode())
    for name, number in sorted(counts.items()):
        print(f"{number:6d} {name}")
    print(f"{args.count} files, seed {args.seed}, {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

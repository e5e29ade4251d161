"""Time and memory of evaluating detections: this package against lvis, pycocotools and faster-coco-eval as they come.

python benchmarks/evaluation.py --style lvis --images 1000 --per-image 260
python benchmarks/evaluation.py --style coco --images 5000 --per-image 100 --repeat 1

Draws annotations and detections with the counts of LVIS (or COCO), writes both to files, and lets every program read
and evaluate them in a process of its own. Seconds are from opening the files to the metrics, imports not counted; the
smallest of the repetitions. Beside them stands the processor time of all threads, which depends less on what else the
machine does. Memory is the highest resident set of the process, all imports included.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tabulate import tabulate

_SHOWN = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def draw(folder: Path, *, style: str, images: int, per_image: int, seed: int) -> None:
    """Write gt.json and results.json.

    Args:
        folder: where.
        style: "lvis" has 1203 classes whose frequencies fall as 1 / rank, "coco" 80.
        images: how many; each shows 12 objects of 5 classes, for LVIS with outlines of 50 points, its files' mean.
        per_image: detections of each.
        seed: of everything.
    """
    from hdetr_d2.evaluation import Detections, write_results  # not above: it would count in every program's memory

    rng = np.random.default_rng(seed)
    num_classes = 1203 if style == "lvis" else 80
    share = 1 / np.arange(1, num_classes + 1)
    share /= share.sum()
    counts = share * 100_000 * 5
    frequency = np.where(counts > 100, "f", np.where(counts > 10, "c", "r"))
    categories = [{"id": i + 1, "name": f"class {i}", "frequency": str(frequency[i])} for i in range(num_classes)]
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found = []
    for image in range(1, images + 1):
        here = rng.choice(num_classes, size=5, replace=False, p=share) + 1
        absent = np.setdiff1d(rng.choice(num_classes, size=8, replace=False) + 1, here)
        known = {"neg_category_ids": absent.tolist(), "not_exhaustive_category_ids": here[:1].tolist()}
        pictures.append({"id": image, "width": 640, "height": 480, "file_name": f"{image}.jpg", **known})
        classes = rng.choice(here, size=12)
        boxes = np.concatenate([rng.uniform(0, 400, (12, 2)), rng.lognormal(4, 0.8, (12, 2))], axis=1).round(2)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], np.array([640, 480]) - boxes[:, :2])  # boxes end where the image does
        for category, box in zip(classes.tolist(), boxes.tolist()):
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box}
            annotations.append({**annotation, "area": box[2] * box[3], "iscrowd": 0})
            if style == "lvis":
                annotations[-1]["segmentation"] = [rng.uniform(0, 640, 100).round(2)]
        judged = np.concatenate([here, absent])
        drawn = _detections(rng, classes, boxes, judged, num_classes, per_image)
        found.append(Detections(np.full(per_image, image), *drawn))
    content = {"images": pictures, "categories": categories, "annotations": annotations}
    (folder / "gt.json").write_bytes(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
    write_results(folder / "results.json", Detections.concatenate(found))


def _detections(
    rng: np.random.Generator,
    classes: np.ndarray,
    boxes: np.ndarray,
    judged: np.ndarray,
    num_classes: int,
    per_image: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, boxes, scores: a third near objects, the others anywhere, half of these of classes that are judged."""
    near = rng.integers(0, len(boxes), per_image // 3)
    far = per_image - len(near)
    moved = boxes[near] + 0.08 * rng.normal(size=(len(near), 4)) * boxes[near][:, [2, 3, 2, 3]]
    anywhere = np.concatenate([rng.uniform(0, 400, (far, 2)), rng.lognormal(4, 0.8, (far, 2))], axis=1)
    all_boxes = np.abs(np.concatenate([moved, anywhere]))
    guessed = np.where(rng.random(far) < 0.5, rng.choice(judged, far), rng.integers(1, num_classes + 1, far))
    right = np.where(rng.random(len(near)) < 0.8, classes[near], rng.choice(judged, len(near)))
    all_classes = np.concatenate([right, guessed])
    scores = np.concatenate([rng.beta(4, 3, len(near)), rng.beta(1.5, 6, far)])
    return all_classes, all_boxes, scores


def _official_lvis() -> Callable[[str, str], dict[str, float]]:
    setattr(np, "float", float)  # noqa: B010  the last release does not know NumPy 1.24 and later
    from lvis import LVISEval

    def run(gt: str, results: str) -> dict[str, float]:
        evaluation = LVISEval(gt, results, "bbox")
        evaluation.run()
        return {name: 100 * value for name, value in evaluation.get_results().items()}

    return run


def _pycocotools() -> Callable[[str, str], dict[str, float]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def run(gt: str, results: str) -> dict[str, float]:
        truth = COCO(gt)
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return dict(zip(_SHOWN, 100 * evaluation.stats))

    return run


def _faster_coco_eval(*, lvis: bool) -> Callable[[str, str], dict[str, float]]:
    from faster_coco_eval import COCO, COCOeval_faster

    def run(gt: str, results: str) -> dict[str, float]:
        truth = COCO(gt)
        evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", lvis_style=lvis)
        if lvis:
            evaluation.params.maxDets = [300]
        evaluation.run()
        metrics = dict(zip(_SHOWN, 100 * np.asarray(evaluation.all_stats)))
        return metrics | (dict(zip(["APr", "APc", "APf"], 100 * evaluation.all_stats[-3:])) if lvis else {})

    return run


def _ours(*, lvis: bool, backend: str) -> Callable[[str, str], dict[str, float]]:
    from hdetr_d2.evaluation import evaluate_coco, evaluate_lvis

    evaluate = evaluate_lvis if lvis else evaluate_coco
    return lambda gt, results: evaluate(gt, results, backend=backend)["bbox"]


PROGRAMS: dict[str, dict[str, Callable[[], Callable[[str, str], dict[str, float]]]]] = {
    "lvis": {
        "lvis 0.5.3": _official_lvis,
        "faster-coco-eval": lambda: _faster_coco_eval(lvis=True),
        "hdetr_d2, pycocotools": lambda: _ours(lvis=True, backend="pycocotools"),
        "hdetr_d2, faster_coco_eval": lambda: _ours(lvis=True, backend="faster_coco_eval"),
        "hdetr_d2, hotcoco": lambda: _ours(lvis=True, backend="hotcoco"),
    },
    "coco": {
        "pycocotools": _pycocotools,
        "faster-coco-eval": lambda: _faster_coco_eval(lvis=False),
        "hdetr_d2, faster_coco_eval": lambda: _ours(lvis=False, backend="faster_coco_eval"),
        "hdetr_d2, hotcoco": lambda: _ours(lvis=False, backend="hotcoco"),
    },
}


def run_one(style: str, program: str, folder: Path) -> None:
    """Evaluate once, and print seconds, memory and metrics as JSON."""
    run = PROGRAMS[style][program]()
    start, processor = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = run(str(folder / "gt.json"), str(folder / "results.json"))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    shown = {name: float(metrics[name]) for name in [*_SHOWN, "APr", "APc", "APf"] if name in metrics}
    print(json.dumps({"seconds": seconds, "processor": processor, "memory": memory, "metrics": shown}))


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """What every program needed and found, the one to compare with first."""
    measured = []
    for program in PROGRAMS[args.style]:
        if args.programs and program not in args.programs:
            continue
        command = [sys.executable, __file__, "--style", args.style, "--folder", str(folder), "--run", program]
        runs = []
        for _ in range(args.repeat):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        best = min(runs, key=lambda each: each["seconds"])
        measured.append({"program": program, **best})
        print(f"  {program}: {best['seconds']:.2f} s", file=sys.stderr)
    return measured


def table(measured: list[dict[str, Any]]) -> str:
    """In Markdown; times and differences are against the first."""
    first = measured[0]
    rows = []
    for each in measured:
        common = first["metrics"].keys() & each["metrics"].keys()
        difference = max(abs(first["metrics"][name] - each["metrics"][name]) for name in common)
        factor = first["seconds"] / each["seconds"]
        row = [each["program"], f"{each['seconds']:.2f}", f"{factor:.1f}", f"{each['processor']:.2f}"]
        row.append(f"{each['memory']:.0f}")
        rows.append([*row, f"{each['metrics']['AP']:.4f}", f"{difference:.1e}"])
    headers = ["program", "seconds", "times as fast", "processor seconds", "peak MiB", "AP", "largest difference"]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=list(PROGRAMS), default="lvis")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--per-image", type=int, default=260, help="detections")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", nargs="+", help="only these; names as in the table")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # in the process of one program
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Draw, run, print."""
    args = parse_args()
    if args.run:
        run_one(args.style, args.run, args.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, style=args.style, images=args.images, per_image=args.per_image, seed=args.seed)
        size = (folder / "results.json").stat().st_size / 2**20
        print(f"{args.images} images, {args.images * args.per_image} detections ({size:.0f} MiB), {args.style}\n")
        print(table(compare(args, folder)))


if __name__ == "__main__":
    main()

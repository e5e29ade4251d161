"""The matching microscope: how well it finds planted label errors, and what recording costs.

    python train_net.py --config-file quickstart/label_errors.py
    python benchmarks/microscope.py label-errors output/label_errors
    python benchmarks/microscope.py cost quickstart/schemes/hybrid_branch.py

"label-errors" ranks the suspects of a training on generated data with planted errors, and prints for each kind the
area under the precision-recall curve (average precision) of the ranking over all annotations, precision and recall
among as many suspects as there are errors, and the recall among twice as many. "cost" trains steps of one model that
are recorded and steps that are not by turns, and prints the mean times of both, the recorded ones with all that is done
with them later, up to the file; on a CPU those are of the processor, so that other work on the machine does not count.
Both train on the same batches, so that neither has the harder ones.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdetr_d2.annotations import pairwise_iou
from hdetr_d2.data import load_dataset_dicts
from hdetr_d2.data.generated.label_errors import ERRORS_FILE
from hdetr_d2.evaluation.runs import read_run_config
from hdetr_d2.microscope import MatchRecorder, read_recording
from hdetr_d2.microscope.suspects import Kind, Suspect, find_suspects

_WARM = 2
"""Pairs of steps before time counts."""


def average_precision(hits: Sequence[bool], total: int) -> float:
    """Area under the precision-recall curve of a ranking, whose misses behind its end are never found."""
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    return float(precision[np.asarray(hits, dtype=bool)].sum() / total) if total else float("nan")


def hits_of(
    kind: Kind, suspects: Sequence[Suspect], errors: Sequence[dict[str, Any]], classes: list[int]
) -> list[bool]:
    """Which suspects are planted errors of their kind; of several for one error the first."""
    if kind != "missing":
        error_of = {error.get("other"): error["annotation_id"] for error in errors}
        error_of |= {error["annotation_id"]: error["annotation_id"] for error in errors}
        named = [error_of.get(suspect.annotation) for suspect in suspects]
        return [one is not None and one not in named[:rank] for rank, one in enumerate(named)]
    left = list(errors)
    hits = []
    for suspect in suspects:
        x, y, right, bottom = suspect.box
        box = np.array([[x, y, right - x, bottom - y]])
        found = next(
            (
                error
                for error in left
                if error["image_id"] == suspect.image_id
                and error["category_id"] == classes[suspect.label]
                and pairwise_iou(box, np.array([error["bbox"]], dtype=np.float64))[0, 0] > 0.5
            ),
            None,
        )
        if found is not None:
            left.remove(found)
        hits.append(found is not None)
    return hits


def label_errors(run: Path) -> None:
    """Print how well the errors of a run's dataset are found."""
    dataset = read_run_config(run).dataset
    file = Path(dataset.train.json)
    planted = json.loads((file.parent / ERRORS_FILE).read_text(encoding="utf-8"))
    content = json.loads(file.read_text(encoding="utf-8"))
    classes = sorted(category["id"] for category in content["categories"])
    add_partners(planted, content["annotations"])
    records = load_dataset_dicts(json_file=file, image_root=dataset.train.images)
    suspects = find_suspects(read_recording(run), records)
    print(f"{len(content['annotations'])} annotations\n")
    print("| kind | planted | area under the curve | precision and recall at their number | recall at twice as many |")
    print("| --- | --- | --- | --- | --- |")
    for kind, found in suspects.items():
        errors = [error for error in planted if error["kind"] == kind]
        hits = hits_of(kind, found, errors, classes)
        count = len(errors)
        at, twice = sum(hits[:count]) / max(count, 1), sum(hits[: 2 * count]) / max(count, 1)
        print(f"| {kind} | {count} | {average_precision(hits, count):.3f} | {at:.3f} | {twice:.3f} |")


def add_partners(planted: list[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> None:
    """Of a double either annotation may be named: the other is the object's own."""
    own = {(a["image_id"], a["category_id"], tuple(a["bbox"])): a["id"] for a in annotations}
    for error in planted:
        if error["kind"] == "doubled":
            error["other"] = own[error["image_id"], error["category_id"], tuple(error["bbox"])]


def cost(config: str, overrides: Sequence[str], steps: int) -> None:
    """Print the mean times of steps that are recorded and that are not, by turns."""
    from detectron2.utils.events import EventStorage

    from hdetr_d2.engine.building import build_model, build_optimizer, build_part
    from hdetr_d2.engine.config import load
    from hdetr_d2.engine.run import resolve
    from hdetr_d2.losses import SetCriterion

    with tempfile.TemporaryDirectory() as folder:
        cfg = load(config, [*overrides, f"train.output_dir={folder}", "dataloader.num_workers=0"])
        resolve(cfg)
        model = build_model(cfg)
        model.train()
        optimizer = build_optimizer(cfg, model)
        criterion = next(module for module in model.modules() if isinstance(module, SetCriterion))
        recorder = MatchRecorder(folder)
        loader = iter(build_part(cfg, "dataloader.train"))
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        times: dict[bool, list[float]] = {True: [], False: []}
        with EventStorage():
            for step in range(2 * steps + 2 * _WARM):
                watched = (step + step // 2) % 2 == 0  # of a batch neither is always the first, whose memory is cold
                if step % 2 == 0:
                    batch = next(loader)
                if step == 2 * _WARM:
                    recorder.flush(step)
                    gc.collect()
                    gc.freeze()  # else a pass over all of PyTorch's objects, 0.2 s, falls on the one kind or the other
                start = clock()
                criterion.observer = recorder if watched else None
                recorder.iteration = step
                if watched:
                    (batch,) = recorder.watch([batch])
                optimizer.zero_grad()
                sum(model(batch).values()).backward()
                optimizer.step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if step >= 2 * _WARM:
                    times[watched].append(clock() - start)
            start = clock()
            recorder.flush(2 * steps)
            times[True].append(clock() - start)
    plain, recorded = (1000 * sum(times[kind]) / steps for kind in (False, True))
    print(f"{plain:.1f} ms a step, {recorded:.1f} ms recorded ({100 * (recorded / plain - 1):+.1f} %), {steps} of each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    errors = commands.add_parser("label-errors")
    errors.add_argument("run", type=Path)
    of_time = commands.add_parser("cost")
    of_time.add_argument("config")
    of_time.add_argument("--steps", type=int, default=60)
    of_time.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if arguments.command == "label-errors":
        label_errors(arguments.run)
    else:
        cost(arguments.config, arguments.overrides, arguments.steps)


if __name__ == "__main__":
    main()

"""What the benchmarks of whole models share: an image with objects, clocks, and processes that take turns."""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

NUM_CLASSES = 91


def seconds_of(run: Callable[[], object], *, clock: str = "wall") -> float:
    """Time of a call, all work on the device included.

    Args:
        run: what to time.
        clock: "wall", or "cpu" for what this process computed meanwhile, over all its threads: on a machine that is
            shared with other work the time it was waiting for a core does not count.
    """
    now = time.perf_counter if clock == "wall" else time.process_time
    start = now()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return now() - start


def peak_mebibytes(device: str) -> float:
    """Peak memory so far: of the device, or of the process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def random_targets(num_targets: int, num_classes: int = NUM_CLASSES) -> tuple[Tensor, Tensor]:
    """Classes (M,) and cxcywh boxes (M, 4) in [0, 1] of an image."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(num_targets, 2, generator=generator) * 0.3 + 0.02
    centre = size / 2 + torch.rand(num_targets, 2, generator=generator) * (1 - size)
    return torch.randint(0, num_classes, (num_targets,), generator=generator), torch.cat([centre, size], 1)


def random_batch(
    size: tuple[int, int], num_targets: int, *, images: int = 1, num_classes: int = NUM_CLASSES
) -> list[dict[str, Any]]:
    """Images of noise with objects, as a model of Detectron2 takes them.

    Args:
        size: (h, w).
        num_targets: objects of each image.
        images: how many.
        num_classes: of the objects.
    """
    from detectron2.structures import Boxes, Instances

    from hdetr_d2.layers import cxcywh_to_xyxy

    labels, boxes = random_targets(num_targets, num_classes)
    height, width = size
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(cxcywh_to_xyxy(boxes) * torch.tensor([width, height, width, height]))
    instances.gt_classes = labels
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=generator)
    return [{"image": image, "height": height, "width": width, "instances": instances} for image in pixels]


def common_parser(description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all have; ``--measure`` is what a process is told that takes its turn."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(names), choices=list(names))
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--targets", type=int, default=7, help="objects in the image")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each model")
    parser.add_argument("--repeats", type=int, default=1, help="timed calls in each process, after one that is not")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a busy machine, on a CPU")
    parser.add_argument("--json", help="write all rounds to this file")
    parser.add_argument("--measure", choices=list(names), help=argparse.SUPPRESS)
    return parser


def measure_in_turns(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Run this program once a model and round with ``--measure``, whose last line is json; medians by model."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in args.models}
    for _ in range(args.rounds):
        for name in args.models:
            command = [sys.executable, *sys.argv, "--measure", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {rounds[name][-1]}", file=sys.stderr, flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(rounds, file, indent=1)
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in rounds.items()
    }


def describe_machine(args: argparse.Namespace) -> str:
    """What the numbers were measured on and with."""
    machine = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    return (
        f"{machine}, {args.threads} threads, {args.device}, torch {torch.__version__}, float32, batch 1\n"
        f"{args.size[0]}x{args.size[1]}, {args.targets} objects, medians of {args.rounds} processes, {args.clock} time"
    )

"""What a training step and an image cost with each model of a comparison: python benchmarks/family.py.

The models of benchmarks/family.yaml on a batch of noise with objects, as large as their trainings have it. Rounds
take turns, so that a busy machine slows all alike; times are medians. A step is forward, losses, backward, clipping of
the gradient and AdamW.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import random_batch, seconds_of
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hdetr_d2.engine import config


def read_rows(file: Path) -> dict[str, DictConfig]:
    """The config of each row of a file for ``hdetr-d2 report compare``, its classes filled in."""
    content = OmegaConf.load(file)
    assert isinstance(content, DictConfig)
    rows = {}
    for name, row in content.rows.items():
        cfg = config.load(row.config, [*content.get("overrides", []), *row.get("overrides", [])])
        cfg.model.num_classes = cfg.dataset.generate.num_classes
        rows[str(name)] = cfg
    return rows


@dataclass(frozen=True)
class Work:
    """What is measured of a model: functions that take a training step of the recipe, and detect in an image."""

    model: nn.Module
    step: Callable[[], object]
    detect: Callable[[], object]


def work_of(cfg: DictConfig, num_targets: int, device: str) -> Work:
    """Build the model of a recipe, for images of ``num_targets`` objects."""
    model = instantiate(cfg.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)
    side = cfg.dataset.short_side
    batch = random_batch((side, side), num_targets, images=cfg.train.batch_size, num_classes=cfg.model.num_classes)

    def step() -> None:
        model.train()
        torch.stack(list(model(batch).values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def detect() -> None:
        model.eval()(batch[:1])

    return Work(model, step, detect)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).parent / "family.yaml")
    parser.add_argument("--targets", type=int, default=6, help="objects in each image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=4, help="calls of a round, of which the first is not timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a busy machine")
    return parser.parse_args()


def main() -> None:
    """Measure and print a Markdown table."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    works = {name: work_of(cfg, args.targets, args.device) for name, cfg in read_rows(args.file).items()}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in works}
    for _ in range(args.rounds):
        for name, work in works.items():
            for run, seconds in zip((work.step, work.detect), times[name]):
                run()
                seconds += [seconds_of(run, clock=args.clock) for _ in range(args.repeats - 1)]
    machine = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    print(f"{machine}, torch {torch.__version__}, medians of {args.rounds} rounds, {args.clock} time\n")
    print("| model | parameters | ms a step | ms an image |\n| --- | --- | --- | --- |")
    for name, work in works.items():
        millions = sum(p.numel() for p in work.model.parameters()) / 1e6
        step_ms, image_ms = (1000 * statistics.median(seconds) for seconds in times[name])
        print(f"| {name} | {millions:.2f} M | {step_ms:.0f} | {image_ms:.1f} |")


if __name__ == "__main__":
    main()

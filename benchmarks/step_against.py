"""A small model's training step here and in another checkout: python benchmarks/step_against.py CHECKOUT.

Both build the quickstart's model with the hybrid branch (its config of that checkout), and train it on the same random
pictures: forward, losses, backward and AdamW. Processes of both take turns, so that a busy machine slows both alike;
a figure is the median of its steps, the ratio the median over turns. The other checkout's operators must be compiled
(``python setup.py build_ext --inplace`` in it).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
CONFIG = "quickstart/h_deformable_detr_generated.py"
NUM_CLASSES = 20
BATCH, SIDE, OBJECTS = 8, 128, 8
WARMUP = 5


def measure(checkout: Path, *, steps: int, threads: int, clock: str) -> float:
    """Milliseconds of a step in a process of its own."""
    command = [sys.executable, __file__, str(checkout), "--steps", str(steps), "--clock", clock, "--step-alone"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def time_steps(checkout: Path, *, steps: int, clock: str) -> float:
    """Median milliseconds of a step of the package that is importable here."""
    import torch
    from common import random_targets, seconds_of
    from detectron2.config import LazyConfig, instantiate
    from detectron2.structures import Boxes, Instances

    config = LazyConfig.load(str(checkout / "configs" / CONFIG))
    config.model.num_classes = NUM_CLASSES
    torch.manual_seed(0)
    model = instantiate(config.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    batch: list[dict[str, Any]] = []
    for _ in range(BATCH):
        classes, boxes = random_targets(OBJECTS, NUM_CLASSES)
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1) * SIDE
        instances = Instances((SIDE, SIDE), gt_boxes=Boxes(corners), gt_classes=classes)
        image = torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "height": SIDE, "width": SIDE, "instances": instances})

    def step() -> None:
        sum(model(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(WARMUP):
        step()
    return 1000 * statistics.median(seconds_of(step, clock=clock) for _ in range(steps))


def main() -> None:
    """Print both figures and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="cpu")
    parser.add_argument("--step-alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    if options.step_alone:
        print(json.dumps(time_steps(checkout, steps=options.steps, clock=options.clock)))
        return
    rounds = []
    for _ in range(options.rounds):
        theirs, ours = (
            measure(place, steps=options.steps, threads=options.threads, clock=options.clock)
            for place in (checkout, HERE)
        )
        rounds.append((theirs, ours))
        print(f"there {theirs:.1f} ms, here {ours:.1f} ms, {theirs / ours:.2f}x", flush=True)
    print(f"median: {statistics.median(theirs / ours for theirs, ours in rounds):.2f}x")


if __name__ == "__main__":
    main()

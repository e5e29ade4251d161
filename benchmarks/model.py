"""Time and memory of whole R50 two-stage models beside the pip package transformers: python benchmarks/model.py.

Each model is measured in a process of its own, in turns, so that peak memory is its own and a busy machine slows all
alike: inference and a training step (forward, losses, backward; the optimiser left out) on one random image, medians
reported. All have two stages, refinement, 300 queries, feed-forward width 2048 and 91 classes.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

MODELS = {
    "transformers": "transformers DeformableDetrForObjectDetection",
    "one2one": "hdetr_d2, one-to-one",
    "hybrid": "hdetr_d2, hybrid branch (+1500 queries)",
}
NUM_CLASSES = 91
Workload = tuple[torch.nn.Module, Callable[[], object], Callable[[], object]]


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of a call, all work on the device included."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def random_targets(num_targets: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes (M,) and cxcywh boxes (M, 4) in [0, 1] of an image."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(num_targets, 2, generator=generator) * 0.3 + 0.02
    centre = size / 2 + torch.rand(num_targets, 2, generator=generator) * (1 - size)
    return torch.randint(0, NUM_CLASSES, (num_targets,), generator=generator), torch.cat([centre, size], 1)


def ours(name: str, args: argparse.Namespace) -> Workload:
    """This project's model, its inference and its training step."""
    from detectron2.config import instantiate
    from detectron2.structures import Boxes, Instances

    from hdetr_d2.layers import cxcywh_to_xyxy
    from hdetr_d2.model_zoo import get_config

    file = "h_deformable_detr" if name == "hybrid" else "deformable_detr_plus_plus"
    config = get_config(f"common/models/{file}.py")
    config.model.num_classes = NUM_CLASSES
    model = instantiate(config.model).to(args.device)
    labels, boxes = random_targets(args.targets)
    height, width = args.size
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(cxcywh_to_xyxy(boxes) * torch.tensor([width, height, width, height]))
    instances.gt_classes = labels
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    batch = [{"image": image, "height": height, "width": width, "instances": instances}]

    def step() -> None:
        torch.stack(list(model(batch).values())).sum().backward()

    return model, lambda: model(batch), step


def theirs(args: argparse.Namespace) -> Workload:
    """The model of transformers with the same configuration, its inference and its training step."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    config = DeformableDetrConfig(
        use_pretrained_backbone=False,
        two_stage=True,
        with_box_refine=True,
        num_queries=300,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        dropout=0.0,
        auxiliary_loss=True,
        num_labels=NUM_CLASSES,
    )
    model = DeformableDetrForObjectDetection(config).to(args.device)
    labels, boxes = random_targets(args.targets)
    pixels = torch.randn(1, 3, *args.size, generator=torch.Generator().manual_seed(1)).to(args.device)
    mask = torch.ones(1, *args.size, dtype=torch.long, device=args.device)
    targets = [{"class_labels": labels.to(args.device), "boxes": boxes.to(args.device)}]

    def step() -> None:
        model(pixel_values=pixels, pixel_mask=mask, labels=targets).loss.backward()

    return model, lambda: model(pixel_values=pixels, pixel_mask=mask), step


def peak_mebibytes(device: str) -> float:
    """Peak memory so far: of the device, or of the process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """One round of one model."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model, infer, step = theirs(args) if name == "transformers" else ours(name, args)
    row: dict[str, float] = {"parameters": sum(p.numel() for p in model.parameters())}
    model.eval()
    with torch.no_grad():
        seconds_of(infer)
        row["inference_s"] = statistics.median(seconds_of(infer) for _ in range(args.repeats))
    row["inference_mib"] = peak_mebibytes(args.device)
    model.train()
    seconds_of(step)
    times = []
    for _ in range(args.repeats):
        model.zero_grad()
        times.append(seconds_of(step))
    return {**row, "training_s": statistics.median(times), "training_mib": peak_mebibytes(args.device)}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown, with ratios against transformers."""
    base = results.get("transformers")
    lines = [
        "| model | inference s | faster | training step s | faster | peak training MiB | less |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results.items():
        cells = [MODELS[name]]
        for key, form in (("inference_s", ".2f"), ("training_s", ".2f"), ("training_mib", ".0f")):
            cells += [format(row[key], form), f"{base[key] / row[key]:.1f}x" if base else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--targets", type=int, default=7, help="objects in the image")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each model")
    parser.add_argument("--repeats", type=int, default=1, help="timed calls in each process, after one that is not")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write all rounds to this file")
    parser.add_argument("--measure", choices=list(MODELS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_arguments()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in args.models}
    for _ in range(args.rounds):
        for name in args.models:
            command = [sys.executable, *sys.argv, "--measure", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {rounds[name][-1]}", file=sys.stderr, flush=True)
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in rounds.items()
    }
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {args.threads} threads, {args.device}, torch {torch.__version__}, float32, batch 1")
    print(f"{args.size[0]}x{args.size[1]}, {args.targets} objects, medians of {args.rounds} processes\n")
    print(table(medians))
    if args.json:
        args.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()

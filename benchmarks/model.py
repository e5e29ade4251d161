"""Time and memory of whole R50 two-stage models beside the pip package transformers: python benchmarks/model.py.

Each model is measured in a process of its own, in turns, so that peak memory is its own and a busy machine slows all
alike: inference and a training step (forward, losses, backward; the optimiser left out) on one random image, medians
reported. The last row is what ``train.precision=bf16`` computes. All have two stages, refinement, 300 queries,
feed-forward width 2048 and 91 classes.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import (
    NUM_CLASSES,
    common_parser,
    describe_machine,
    measure_in_turns,
    peak_mebibytes,
    random_batch,
    random_targets,
    seconds_of,
)

MODELS = {
    "transformers": "transformers DeformableDetrForObjectDetection",
    "one2one": "hdetr_d2, one-to-one",
    "hybrid": "hdetr_d2, hybrid branch (+1500 queries)",
    "bfloat16": "hdetr_d2, one-to-one, bfloat16 autocast",
}
Workload = tuple[torch.nn.Module, Callable[[], object], Callable[[], object]]


def ours(name: str, args: argparse.Namespace) -> Workload:
    """This project's model, its inference and its training step."""
    from detectron2.config import instantiate

    from hdetr_d2.model_zoo import get_config

    file = "h_deformable_detr" if name == "hybrid" else "deformable_detr_plus_plus"
    config = get_config(f"common/models/{file}.py")
    config.model.num_classes = NUM_CLASSES
    model = instantiate(config.model).to(args.device)
    batch = random_batch(tuple(args.size), args.targets)

    def run() -> Any:
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=name == "bfloat16"):
            return model(batch)

    def step() -> None:
        torch.stack(list(run().values())).sum().backward()

    return model, run, step


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


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """One round of one model."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model, infer, step = theirs(args) if name == "transformers" else ours(name, args)
    row: dict[str, float] = {"parameters": sum(p.numel() for p in model.parameters())}
    model.eval()
    with torch.no_grad():
        seconds_of(infer)
        row["inference_s"] = statistics.median(seconds_of(infer, clock=args.clock) for _ in range(args.repeats))
    row["inference_mib"] = peak_mebibytes(args.device)
    model.train()
    seconds_of(step)
    times = []
    for _ in range(args.repeats):
        model.zero_grad()
        times.append(seconds_of(step, clock=args.clock))
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


def main() -> None:
    """Measure and print."""
    args = common_parser(__doc__, list(MODELS)).parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    results = measure_in_turns(args)
    print(f"{describe_machine(args)}\n\n{table(results)}")


if __name__ == "__main__":
    main()

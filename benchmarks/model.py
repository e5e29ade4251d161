"""Time and memory of whole R50 two-stage models beside the pip package transformers: python benchmarks/model.py.

Each model is measured in a process of its own, in turns, so that peak memory is its own and a busy machine slows all
alike: inference and a training step (forward, losses, backward; the optimiser left out) on one random image, medians
reported. The last model is what ``train.precision=bf16`` computes. The floor is what the matrix products and
convolutions of the one-to-one model take alone (``floor.py``). Ours keeps its pages, and is optimised for inference, as
the programs have it; ``--as-is`` measures without. All have two stages, refinement, 300 queries,
feed-forward width 2048 and 91 classes.
"""

import argparse
import copy
import functools
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
    "floor": "its matrix products and convolutions alone, float32",
}
Workload = tuple[torch.nn.Module, Callable[[], object], Callable[[], object]]
"""A model, its inference in the state it is in, and its training step."""


def ours(name: str, args: argparse.Namespace) -> Workload:
    """This project's model, its inference and its training step."""
    from detectron2.config import instantiate

    from hdetr_d2 import optimize
    from hdetr_d2.model_zoo import get_config
    from hdetr_d2.pages import keep_pages

    file = "h_deformable_detr" if name == "hybrid" else "deformable_detr_plus_plus"
    config = get_config(f"common/models/{file}.py")
    config.model.num_classes = NUM_CLASSES
    model = instantiate(config.model).to(args.device)
    batch = random_batch(tuple(args.size), args.targets)

    as_programs = not args.as_is and name != "floor"
    if as_programs:
        keep_pages()
    fast = optimize(copy.deepcopy(model)) if as_programs else model

    def run(model: Any) -> Any:
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=name == "bfloat16"):
            return model(batch)

    def step() -> None:
        torch.stack(list(run(model).values())).sum().backward()

    return model, functools.partial(run, fast), step


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


def floor(
    infer: Callable[[], object], step: Callable[[], object], model: torch.nn.Module, args: argparse.Namespace
) -> dict[str, float]:
    """Seconds of the products of inference and of a training step; of plain feed-forward parts, in one piece."""
    from floor import record, seconds_of_products

    from hdetr_d2.layers import feed_forward

    feed_forward.PIECE_BYTES = 2**62
    model.eval()
    with torch.no_grad():
        of_inference = record(infer)
    model.train()
    of_training = record(step)
    model.zero_grad()
    inference, training = (seconds_of_products(each, clock=args.clock) for each in (of_inference, of_training))
    return {"inference_s": inference, "inference_mib": 0.0, "training_s": training, "training_mib": 0.0}


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """One round of one model."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model, infer, step = theirs(args) if name == "transformers" else ours(name, args)
    row: dict[str, float] = {"parameters": sum(p.numel() for p in model.parameters())}
    if name == "floor":
        return {**row, **floor(infer, step, model, args)}
    model.eval()
    with torch.no_grad():
        seconds_of(infer)
        row["inference_s"] = statistics.median(seconds_of(infer, clock=args.clock) for _ in range(args.repeats))
    row["inference_mib"] = peak_mebibytes(args.device)
    del infer
    model.train()
    seconds_of(step)
    times = []
    for _ in range(args.repeats):
        model.zero_grad()
        times.append(seconds_of(step, clock=args.clock))
    return {**row, "training_s": statistics.median(times), "training_mib": peak_mebibytes(args.device)}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown, with ratios against transformers and over the floor, where they were measured."""
    base, least = results.get("transformers"), results.get("floor")
    lines = [
        "| model | inference s | faster | / floor | training step s | faster | / floor | peak training MiB | less |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in results.items():
        cells = [MODELS[name]]
        for key in ("inference_s", "training_s"):
            cells += [
                format(row[key], ".2f"),
                f"{base[key] / row[key]:.1f}x" if base else "",
                f"{row[key] / least[key]:.2f}x" if least else "",
            ]
        memory = row["training_mib"]
        cells += [f"{memory:.0f}" if memory else "", f"{base['training_mib'] / memory:.1f}x" if base and memory else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = common_parser(__doc__, list(MODELS))
    parser.add_argument("--as-is", action="store_true", help="measure models as trained, and memory as glibc has it")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    results = measure_in_turns(args)
    print(f"{describe_machine(args)}\n\n{table(results)}")


if __name__ == "__main__":
    main()

"""Peak memory of a training step of the R50 recipe for LVIS's 1203 classes: python benchmarks/lvis_memory.py.

The recipe chooses 50 classes a step and has one channel for proposals; beside it, each of the two without the other,
and neither: all classes in the losses, and as many channels for proposals. A process of its own for each, in turns, one
random image, forward, losses and backward.
"""

import argparse
import json
from typing import Any

import torch
from common import common_parser, describe_machine, measure_in_turns, peak_mebibytes, random_batch, seconds_of

CLASSES = 1203
MODELS = {  # title, one channel for proposals, federated loss
    "wide-all": ("1203 channels for proposals, all classes in the loss", False, False),
    "wide-50": ("1203 channels for proposals, 50 classes in the loss", False, True),
    "narrow-all": ("1 channel for proposals, all classes in the loss", True, False),
    "narrow-50": ("the recipe: 1 channel, 50 classes", True, True),
}


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """One step of one of them, as a process of its own."""
    from detectron2.config import instantiate

    from hdetr_d2.losses import SigmoidFocalLoss
    from hdetr_d2.model_zoo import get_config

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    _, narrow, federated = MODELS[name]
    config = get_config(args.recipe)
    config.dataset.num_classes = CLASSES
    config.dataset.image_counts = list(range(1, CLASSES + 1))
    if not narrow:
        config.model.transformer.heads.encoder_classes = None
    model = instantiate(config.model).to(args.device).train()
    if not federated:
        model.criterion.classification = SigmoidFocalLoss()
    row = {"built_mib": peak_mebibytes(args.device)}
    losses = model.losses

    def watched(predictions: dict[str, Any], *rest: Any) -> dict[str, torch.Tensor]:
        for group in predictions.values():
            # Called when the gradient of the logits is there; later calls replace earlier ones.
            group.logits.register_hook(lambda _: row.update(losses_mib=peak_mebibytes(args.device)))
        return losses(predictions, *rest)

    model.losses = watched
    batch = random_batch(tuple(args.size), args.targets)
    row["seconds"] = seconds_of(lambda: torch.stack(list(model(batch).values())).sum().backward())
    return {**row, "peak_mib": peak_mebibytes(args.device)}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown; the first peak is that until the losses have given the decoder's logits their gradient."""
    lines = [
        "| | peak MiB until after the losses | less | peak MiB of the whole step | less | seconds (first step) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first = next(iter(results.values()))
    for name, row in results.items():
        cells = [MODELS[name][0]]
        for key in ("losses_mib", "peak_mib"):
            cells += [f"{row[key]:.0f}", f"{first[key] - row[key]:.0f}"]
        lines.append(f"| {' | '.join([*cells, format(row['seconds'], '.1f')])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = common_parser(__doc__, list(MODELS))
    parser.add_argument("--recipe", default="h_deformable_detr_lvis_r50_24ep")
    parser.set_defaults(targets=13, rounds=1)  # LVIS has about 13 objects an image
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    results = measure_in_turns(args)
    print(f"{args.recipe}, {CLASSES} classes; {describe_machine(args)}\n\n{table(results)}")


if __name__ == "__main__":
    main()

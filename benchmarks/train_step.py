"""What each matching scheme costs: a training step and inference, part by part: python benchmarks/train_step.py.

R50 with two stages, refinement and the tricks of H-DETR, one random image; a process of its own for each scheme and
round, in turns, so that peak memory is its own and a busy machine slows all alike. Times are medians. The epoch scheme
is measured in its one-to-many part. A step is forward, losses, backward, clipping of the gradient and AdamW.

With --after-encoder backbone and encoder, which are the same for all schemes and most of the time, are computed once:
what is left is measured many times, so that small differences show on a machine that is not quiet.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import (
    NUM_CLASSES,
    common_parser,
    describe_machine,
    measure_in_turns,
    peak_mebibytes,
    random_batch,
    seconds_of,
)
from torch import nn

SCHEMES: dict[str, tuple[str, int, str]] = {  # title, queries of the primary group, supervision
    "one2one-300": ("one-to-one, 300 queries", 300, "OneToOne"),
    "one2one-1800": ("one-to-one, 1800 queries", 1800, "OneToOne"),
    "branch": ("hybrid branch, 300 + 1500", 300, "HybridBranch"),
    "epoch": ("hybrid epoch, 1800", 1800, "HybridEpoch"),
    "layer": ("hybrid layer, 1800", 1800, "HybridLayer"),
}
PARTS = ("backbone", "encoder", "queries", "decoder", "matching", "loss", "backward", "optimiser")


class Clock:
    """Adds up how long parts take; of nested parts the caller has to subtract the inner one.

    Args:
        kind: "wall" or "cpu", as of ``seconds_of``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts as that of a part."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result: list[Any] = []
            spent = seconds_of(lambda: result.append(function(*args, **kwargs)), clock=self.kind)
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            return result[0]

        return wrapper

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[dict[str, float]]:
        """Time the parts of a model until the end of the block; the times of this block."""
        from hdetr_d2.losses import criterion

        self.seconds = {}
        transformer: Any = model.transformer
        modules = {
            "backbone": model.backbone,
            "encoder": transformer.encoder,
            "queries": transformer.query_source,
            "decoder": transformer.decoder,
            "loss": model.criterion,
        }
        match_step = criterion.match_step
        criterion.match_step = self.timed("matching", match_step)
        before = {name: module.forward for name, module in modules.items()}
        for name, module in modules.items():
            module.forward = self.timed(name, module.forward)  # an attribute of this object, before that of its class
        try:
            yield self.seconds
        finally:
            criterion.match_step = match_step
            for name, module in modules.items():
                module.forward = before[name]


def build(name: str, args: argparse.Namespace) -> nn.Module:
    """The model of a scheme."""
    from detectron2.config import LazyCall, instantiate

    from hdetr_d2 import supervision
    from hdetr_d2.model_zoo import get_config

    _, num_queries, scheme = SCHEMES[name]
    model = get_config("common/models/deformable_detr_plus_plus.py").model
    model.num_classes = NUM_CLASSES
    model.transformer.query_source.num_queries = num_queries
    model.supervision = LazyCall(getattr(supervision, scheme))()
    return instantiate(model).to(args.device)


def freeze(module: nn.Module) -> None:
    """From its first call on, let a module return what it returned then, as the place where gradients end."""
    original: Any = module.forward
    kept: list[Any] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            with torch.no_grad():
                kept.append(original(*args, **kwargs))
        result = kept[0]
        return result.detach().requires_grad_() if isinstance(result, torch.Tensor) else result

    module.forward = forward


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """One round of one scheme."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model, clock = build(name, args), Clock(args.clock)
    batch = random_batch(tuple(args.size), args.targets)
    row: dict[str, float] = {}
    if args.after_encoder:
        freeze(model.backbone)
        freeze(model.transformer.encoder)
    model.eval()
    with torch.no_grad():
        model(batch)
        times = [seconds_of(lambda: model(batch), clock=args.clock) for _ in range(args.repeats)]
    row["inference"] = statistics.median(times)
    row["inference_mib"] = peak_mebibytes(args.device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=1e-4, fused=True)

    def step() -> None:
        loss = torch.stack(list(model(batch).values())).sum()
        clock.timed("backward", loss.backward)()
        clock.timed("optimiser", update)()

    def update() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()

    step()
    steps = []
    for _ in range(args.repeats):
        with clock.watching(model) as seconds:
            total = seconds_of(step, clock=args.clock)
        seconds["loss"] -= seconds["matching"]
        steps.append({"step": total, **{part: seconds[part] for part in PARTS}})
    row |= {key: statistics.median(one[key] for one in steps) for key in steps[0]}
    return {**row, "training_mib": peak_mebibytes(args.device)}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown: seconds, and how much more than 300 queries one-to-one."""
    base = results.get("one2one-300")
    lines = [
        f"| scheme | training step | | {' | '.join(PARTS)} | training MiB | inference | inference MiB |",
        "| --- " * (len(PARTS) + 6) + "|",
    ]
    for name, row in results.items():
        more = f"{100 * (row['step'] / base['step'] - 1):+.0f} %" if base else ""
        cells = [SCHEMES[name][0], f"{row['step']:.2f}", more, *(f"{row[part]:.3f}" for part in PARTS)]
        cells += [f"{row['training_mib']:.0f}", f"{row['inference']:.2f}", f"{row['inference_mib']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = common_parser(__doc__, list(SCHEMES))
    parser.add_argument("--after-encoder", action="store_true", help="compute backbone and encoder once only")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    results = measure_in_turns(args)
    print(f"{describe_machine(args)}; seconds\n\n{table(results)}")


if __name__ == "__main__":
    main()

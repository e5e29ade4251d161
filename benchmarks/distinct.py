"""What distinct queries cost at inference: the query source with and without, and the whole model.

    python benchmarks/distinct.py --threads 1 --clock cpu [--queries 300 900]

Deformable DETR++ (R50, four levels) on one image of noise of 800 x 1333 pixels, 22,223 tokens. Memory is drawn at
random and so are the heads' last layers: "spread" boxes differ from token to token and are mostly kept, so that
suppression has the most to do; "crowded" ones are the anchors, of which neighbours overlap.
"""

import argparse
import platform
from statistics import median

import torch
from common import random_batch, seconds_of
from detectron2.config import instantiate

from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.ops import nms_mask
from hdetr_d2.structures import Memory

LEVELS = ((100, 167), (50, 84), (25, 42), (13, 21))
SIZE = (800, 1333)
THRESHOLD = 0.5


def build(num_queries: int, *, spread: bool) -> DETR:
    """The model in evaluation mode, without pre-trained weights."""
    torch.manual_seed(0)
    config = get_config("common/models/deformable_detr_plus_plus.py").model
    config.transformer.query_source.num_queries = num_queries
    config.num_classes = 80
    model: DETR = instantiate(config)
    pair = model.transformer.heads.of_encoder()
    torch.nn.init.normal_(pair.class_head.weight)
    if spread:
        for parameter in pair.box_head.parameters():
            torch.nn.init.normal_(parameter, std=0.1 if parameter.dim() > 1 else 1.0)
    return model.eval()


def draw_memory() -> Memory:
    count = sum(height * width for height, width in LEVELS)
    ratios = torch.ones(1, len(LEVELS), 2)
    return Memory(torch.randn(1, count, 256), None, None, LEVELS, ratios)


@torch.no_grad()
def measure(num_queries: int, *, spread: bool, repeats: int, clock: str) -> None:
    """One line of the table: medians of runs that take turns."""
    model, memory = build(num_queries, spread=spread), draw_memory()
    source, heads = model.transformer.query_source, model.transformer.heads
    times: dict[float | None, list[float]] = {None: [], THRESHOLD: []}
    for _ in range(repeats + 1):
        for distinct, of_it in times.items():
            source.distinct = distinct
            of_it.append(seconds_of(lambda: source(memory, heads, training=False), clock=clock))
    without, with_it = (median(of_it[1:]) for of_it in times.values())
    batch = random_batch(SIZE, 7)
    whole = median(seconds_of(lambda: model(batch), clock=clock) for _ in range(2))
    more = with_it - without
    kind = "spread" if spread else "crowded"
    print(
        f"| {num_queries} | {kind} | {1e3 * without:.0f} | {1e3 * with_it:.0f} | {1e3 * more:.1f} | "
        f"{whole:.2f} | {100 * more / whole:.2f} % |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[300, 900])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a busy machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    assert nms_mask(torch.zeros(1, 1, 4), THRESHOLD).all()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {arguments.threads} thread(s), {arguments.clock} time")
    print("| queries | boxes | query source, ms | distinct, ms | more, ms | model, s | part |\n|" + "---|" * 7)
    for num_queries in arguments.queries:
        for spread in (False, True):
            measure(num_queries, spread=spread, repeats=arguments.repeats, clock=arguments.clock)


if __name__ == "__main__":
    main()

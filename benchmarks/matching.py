"""Matching of a training step, and decoder self-attention, against the authors' procedure.

    python benchmarks/matching.py [--targets 7 30 100 300] [--repeats 7] [--threads 1] [--json FILE]

Two images, six decoder layers of 300 one-to-one and 1500 one-to-many queries (K = 6) and 22,223 encoder proposals, with
simulated predictions: ``early`` boxes and classes that know nothing of the targets, ``late`` queries that crowd around
them. Both procedures run in turn on the same predictions, and medians are compared. The reference is written from the
description of the authors' code: costs of every image's queries against the targets of the whole batch, repeated K
times, with ``torch.cdist``; a copy to the host; scipy an image.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy, generalized_box_iou
from hdetr_d2.layers.attention import GroupView, MultiheadAttention
from hdetr_d2.matching import HungarianMatcher, MatchingCost, OneToManyMatcher, candidates
from hdetr_d2.matching.solver import Assignment, solve_many
from hdetr_d2.matching.step import MatchRequest, match_step
from hdetr_d2.structures import Predictions, Targets

IMAGES, LAYERS, CLASSES, COPIES = 2, 6, 80, 6
ONE2ONE, ONE2MANY, PROPOSALS = 300, 1500, 22223
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def simulate(layers: int, queries: int, targets: Sequence[Targets], late: bool) -> Predictions:
    """Predictions as of a model that has learnt nothing, or much."""
    logits = torch.randn(layers, len(targets), queries, CLASSES) * 0.5 - 4.6
    boxes = torch.cat([torch.rand(layers, len(targets), queries, 2), 0.02 + 0.5 * torch.rand_like(logits[..., :2])], -1)
    if late:
        for image, objects in enumerate(targets):
            near = torch.randint(len(objects.labels), (layers, queries))
            noise = 0.09 * torch.randn(layers, queries, 4) * torch.rand(layers, queries, 1)
            boxes[:, image] = objects.boxes[near] + noise
            sure = objects.labels[near][..., None]
            logits[:, image] = logits[:, image].scatter_add(-1, sure, 4 * torch.rand(layers, queries, 1))
    return Predictions(logits, boxes.clamp(0.001, 0.999))


def simulate_step(num_targets: int, late: bool) -> list[MatchRequest]:
    """The three groups of predictions of a training step of H-Deformable-DETR."""
    boxes = [
        torch.cat([0.1 + 0.8 * torch.rand(num_targets, 2), 0.02 + 0.4 * torch.rand(num_targets, 2) ** 2], -1)
        for _ in range(IMAGES)
    ]
    targets = [Targets(torch.randint(CLASSES, (num_targets,)), b) for b in boxes]
    objects = [Targets(torch.zeros_like(t.labels), t.boxes) for t in targets]
    one, many = HungarianMatcher(), OneToManyMatcher(k=COPIES)
    return [
        MatchRequest(simulate(LAYERS, ONE2ONE, targets, late), [one] * LAYERS, targets),
        MatchRequest(simulate(LAYERS, ONE2MANY, targets, late), [many] * LAYERS, targets),
        MatchRequest(simulate(1, PROPOSALS, objects, late), [one], objects),
    ]


def copies_of(request: MatchRequest) -> int:
    matcher = request.matchers[0]
    assert isinstance(matcher, HungarianMatcher | OneToManyMatcher)
    return int(matcher.copies or 0)


def authors_costs(logits: Tensor, boxes: Tensor, targets: Sequence[Targets], k: int) -> Tensor:
    """(B, N, sum of k * M) costs of one layer, on the host."""
    labels = torch.cat([t.labels.repeat(k) for t in targets])
    target_boxes = torch.cat([t.boxes.repeat(k, 1) for t in targets])
    p, flat_boxes = logits.flatten(0, 1).sigmoid(), boxes.flatten(0, 1)
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    class_cost = positive[:, labels] - negative[:, labels]
    l1 = torch.cdist(flat_boxes, target_boxes, p=1)
    giou = generalized_box_iou(cxcywh_to_xyxy(flat_boxes)[:, None], cxcywh_to_xyxy(target_boxes))
    cost = 5 * l1 + 2 * class_cost - 2 * giou
    return cost.view(*logits.shape[:2], -1).cpu()


def authors_step(requests: Sequence[MatchRequest]) -> None:
    """Costs and assignment of every group and layer, one after another."""
    for request in requests:
        k = copies_of(request)
        for logits, boxes in zip(request.predictions.logits, request.predictions.boxes):
            cost = authors_costs(logits, boxes, request.targets, k)
            for image, part in enumerate(cost.split([k * len(t.labels) for t in request.targets], -1)):
                linear_sum_assignment(part[image])


def alternate(repeats: int, *functions: Callable[[], object], clock: str, calls: int = 1) -> list[float]:
    """Median milliseconds of each, run in turn; ``calls`` of one after another a turn where they are short."""
    now = CLOCKS[clock]
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, record in zip(functions, times):
            start = now()
            for _ in range(calls):
                function()
            if repeat:
                record.append(1e3 * (now() - start) / calls)
    return [median(record) for record in times]


def bench_solver(requests: Sequence[MatchRequest], repeats: int, clock: str) -> list[dict[str, Any]]:
    """One problem of each size: scipy on the repeated matrix against the solver, and whether they cost the same."""
    rows = []
    for request in requests:
        k, targets = copies_of(request), request.targets[0]
        predictions = request.predictions
        cost = MatchingCost()(predictions.logits[0, 0], predictions.boxes[0, 0], targets.labels, targets.boxes)
        repeated = cost.repeat(1, k).numpy()
        solvers = (lambda r=repeated: linear_sum_assignment(r)), (lambda c=cost, k=k: solve_many([c], [k]))
        scipy_ms, own_ms = alternate(repeats, *solvers, clock=clock, calls=5)
        by_scipy = repeated[linear_sum_assignment(repeated)].astype("float64").sum()
        (own,) = solve_many([cost], [k])
        difference = abs(cost[own.rows, own.columns].double().sum().item() - by_scipy)
        rows.append(
            {"queries": cost.shape[0], "k": k, "scipy_ms": scipy_ms, "own_ms": own_ms, "difference": difference}
        )
    return rows


def total_differences(requests: Sequence[MatchRequest]) -> float:
    """Largest difference of total cost between our step and scipy on the repeated matrix, over all its problems."""
    worst = 0.0
    for request, matches in zip(requests, match_step(requests)):
        predictions, k, offset = request.predictions, copies_of(request), 0
        queries = predictions.logits.shape[2]
        for image, targets in enumerate(request.targets):
            costs = MatchingCost()(
                predictions.logits[:, image], predictions.boxes[:, image], targets.labels, targets.boxes
            ).double()
            here = matches.row // queries == image
            for layer, cost in enumerate(costs):
                mine = here & (matches.layer == layer)
                repeated = cost.repeat(1, k).numpy()
                best = repeated[linear_sum_assignment(repeated)].sum()
                ours = cost[matches.row[mine] % queries, matches.target[mine] - offset].sum().item()
                worst = max(worst, abs(ours - best))
            offset += len(targets.labels)
    return worst


def bytes_to_host(requests: Sequence[MatchRequest]) -> dict[str, int]:
    """Bytes that the authors' procedure and ours copy from a GPU, in how many copies, and problems copied whole."""
    theirs, stacks, copies = 0, [], []
    for request in requests:
        k, predictions = copies_of(request), request.predictions
        layers, images, queries, _ = predictions.logits.shape
        theirs += layers * images * queries * sum(k * len(t.labels) for t in request.targets) * 4
        for image, targets in enumerate(request.targets):
            logits, boxes = predictions.logits[:, image], predictions.boxes[:, image]
            stacks.append(MatchingCost()(logits, boxes, targets.labels, targets.boxes))
            copies.append(k)
    copied: list[int] = []
    to_host, solve_many = candidates.to_host, candidates.solve_many
    counted = {"whole": 0}

    def counting_copies(tensors: Sequence[Tensor]) -> list[Tensor]:
        copied.append(sum(x.nbytes for x in tensors))
        return to_host(tensors)

    def counting_problems(costs: Sequence[Tensor], each: Sequence[int]) -> list[Assignment]:
        counted["whole"] += len(costs)
        return solve_many(costs, each)

    candidates.to_host, candidates.solve_many = counting_copies, counting_problems
    try:
        candidates.solve_by_candidates(stacks, copies)
    finally:
        candidates.to_host, candidates.solve_many = to_host, solve_many
    return {"official": theirs, "own": sum(copied), "copies": sum(map(bool, copied)), "copied_whole": counted["whole"]}


def bench_attention(repeats: int, clock: str) -> dict[str, Any]:
    """Forward and backward of decoder self-attention over two groups that do not see each other."""
    both = ONE2ONE + ONE2MANY
    mask = torch.zeros(both, both, dtype=torch.bool)
    mask[:ONE2ONE, ONE2ONE:] = mask[ONE2ONE:, :ONE2ONE] = True
    masked = torch.nn.MultiheadAttention(256, 8, batch_first=True)
    grouped = MultiheadAttention(embed_dim=256, num_heads=8)
    grouped.load_state_dict(masked.state_dict())
    groups = (0, ONE2ONE), (ONE2ONE, both)
    views = [GroupView(queries=group, keys=(group,)) for group in groups]
    content, position = torch.randn(2, both, 256, requires_grad=True), torch.randn(2, both, 256)

    def by_mask() -> Tensor:
        output = masked(content + position, content + position, content, attn_mask=mask)[0]
        output.sum().backward()
        return output

    def by_group() -> Tensor:
        output = grouped(content, position, views)
        output.sum().backward()
        return output

    difference = (by_mask() - by_group()).abs().max().item()
    mask_ms, group_ms = alternate(repeats, by_mask, by_group, clock=clock)
    return {"masked_ms": mask_ms, "grouped_ms": group_ms, "difference": difference}


def bench_size(num_targets: int, late: bool, repeats: int, clock: str) -> dict[str, Any]:
    torch.manual_seed(num_targets)
    requests = simulate_step(num_targets, late)
    solver = bench_solver(requests, repeats, clock)
    steps = (lambda: authors_step(requests)), (lambda: match_step(requests))
    official_ms, own_ms = alternate(repeats if num_targets < 100 else min(repeats, 3), *steps, clock=clock)
    row = {"targets": num_targets, "state": "late" if late else "early", "solver": solver}
    step = {"official_ms": official_ms, "own_ms": own_ms, "difference": total_differences(requests)}
    return {**row, "step": step, "bytes": bytes_to_host(requests)}


def show(row: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    cells = [str(row["targets"]), row["state"]]
    for one in row["solver"]:
        cells.append(f"{one['scipy_ms']:.3f} / {one['own_ms']:.3f} = {one['scipy_ms'] / one['own_ms']:.1f}")
    step, copied = row["step"], row["bytes"]
    cells.append(f"{step['official_ms']:.0f} / {step['own_ms']:.1f} = {step['official_ms'] / step['own_ms']:.1f}")
    cells.append(f"{copied['official'] / copied['own']:.0f} ({copied['copies']}, {copied['copied_whole']})")
    cells.append(f"{max(step['difference'], *(one['difference'] for one in row['solver'])):.0e}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[7, 30, 100, 300], help="targets an image")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each procedure")
    parser.add_argument("--threads", type=int, default=1, help="threads of both procedures")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: this process's time, if shared")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {arguments.threads} thread(s), {arguments.clock} time; ms")
    sizes = [f"solver {q} queries, K {k}" for q, k in ((ONE2ONE, 1), (ONE2MANY, COPIES), (PROPOSALS, 1))]
    titles = ["M", "state", *sizes, "step", "bytes, ratio (copies, problems whole)", "cost difference"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    rows = []
    for num_targets in arguments.targets:
        for late in (False, True):
            rows.append(bench_size(num_targets, late, arguments.repeats, arguments.clock))
            print(show(rows[-1]), flush=True)
    attention = bench_attention(arguments.repeats, arguments.clock)
    times = attention["masked_ms"], attention["grouped_ms"], attention["masked_ms"] / attention["grouped_ms"]
    print("self-attention, forward + backward: masked {:.0f} / by group {:.0f} = {:.2f}".format(*times))
    print(f"largest difference of its outputs {attention['difference']:.0e}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"matching": rows, "attention": attention}, indent=2) + "\n")


if __name__ == "__main__":
    main()

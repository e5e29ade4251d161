"""Top-k matching against loops over queries and targets, and against the authors' matches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.matching import TopKMatcher
from tests.rankings import decided


def draw(queries: int = 60, targets: int = 6, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, boxes, labels and target boxes; many boxes lie on targets, of which some overlap."""
    target_boxes = torch.cat([0.4 + 0.2 * torch.rand(targets, 2), 0.2 + 0.2 * torch.rand(targets, 2)], dim=1)
    nearby = target_boxes[torch.randint(targets, (queries,))] + 0.06 * torch.randn(queries, 4)
    return 2 * torch.randn(queries, classes), nearby.clamp(0.05, 0.95), torch.randint(classes, (targets,)), target_boxes


def literal(
    matcher: TopKMatcher, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor
) -> list[tuple[int, int]]:
    """(query, target) pairs of the authors' rule, step by step."""
    score = {}
    for query in range(len(boxes)):
        for target in range(len(labels)):
            iou = box_iou(cxcywh_to_xyxy(boxes[query]), cxcywh_to_xyxy(target_boxes[target])).item()
            p = logits[query, labels[target]].sigmoid().item()
            score[query, target] = matcher.iou_weight * iou + (1 - matcher.iou_weight) * p
    queries, targets = range(len(boxes)), range(len(labels))
    own = {q: max(targets, key=lambda t: score[q, t]) for q in queries}
    forced = {max(queries, key=lambda q: score[q, t]) for t in targets}
    votes = [own[q] for q in queries if score[q, own[q]] >= matcher.threshold or q in forced]
    votes = votes if matcher.max_positives is None else votes[: matcher.max_positives]
    pairs = []
    for target in targets:
        best_first = sorted(queries, key=lambda q: -score[q, target])
        pairs += [(q, target) for q in best_first[: min(votes.count(target), matcher.k)]]
    return sorted(pairs, key=lambda pair: score[pair]) if matcher.best_last else pairs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"iou_weight": 0.2, "k": 2},
        {"max_positives": 7},
        {"best_last": True, "threshold": 0.6},
        {"max_positives": None, "k": 100},
    ],
    ids=["default", "few", "capped", "best_last", "all"],
)
def test_matches_are_those_of_the_rule_step_by_step(options: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    matcher = TopKMatcher(**options)
    problem = decided(draw, lambda drawn: matcher(*drawn))
    queries, targets = matcher(*problem)
    assert list(zip(queries.tolist(), targets.tolist())) == literal(matcher, *problem)
    assert queries.dtype == targets.dtype == torch.int64


def test_layers_are_matched_at_once_as_one_by_one() -> None:
    matcher = TopKMatcher()
    problems = [draw() for _ in range(3)]
    labels, target_boxes = problems[0][2:]
    logits, boxes = (torch.stack(x) for x in zip(*(p[:2] for p in problems)))
    proposed = matcher.propose(logits, boxes, labels, target_boxes)
    for layer in range(3):
        solution = matcher.finish(*(x[layer] for x in proposed))
        queries, targets = matcher(logits[layer], boxes[layer], labels, target_boxes)
        assert torch.equal(solution.rows, queries)
        assert torch.equal(solution.columns, targets)


ROUTES = [
    ("mr_detr_deformable", "match/group", "route/group"),
    ("mr_detr_deformable", "match/sep", "route/sep"),
    ("mr_detr_dino", "match/group", "route/group"),
    ("mr_detr_dino", "match/sep", "route/sep"),
    ("ms_deformable_detr", "match/o2m", "train/o2m"),
]


@pytest.mark.parametrize(("name", "matches", "outputs"), ROUTES)
def test_stored_outputs_give_the_authors_matches(shared_folder: Path, name: str, matches: str, outputs: str) -> None:
    path = shared_folder / f"parity/family/{name}.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    data = np.load(path)
    config = json.loads(data["config.json"].tobytes())
    matcher = TopKMatcher(
        iou_weight=config["o2m_iou_weight"],
        threshold=config["o2m_threshold"],
        k=config["o2m_k"],
        max_positives=config.get("o2m_positive_cap", 225),
        best_last=name.startswith("ms"),
    )
    logits, boxes = (torch.from_numpy(data[f"{outputs}/{kind}"]) for kind in ("logits", "boxes"))
    repeated = 0
    for image in range(logits.shape[1]):
        target = [torch.from_numpy(data[f"gt/{image}/{kind}"]) for kind in ("labels", "boxes_cxcywh")]
        for layer in range(len(logits)):
            queries, targets = matcher(logits[layer, image], boxes[layer, image], *target)
            assert queries.tolist() == data[f"{matches}/{layer}/{image}/query"].tolist()
            assert targets.tolist() == data[f"{matches}/{layer}/{image}/gt"].tolist()
            repeated += len(queries) - len(queries.unique())
    if (name, matches) != ("mr_detr_deformable", "match/sep"):
        assert repeated > 0  # what these files are for


def test_a_target_whose_best_query_prefers_another_gets_none() -> None:
    target_boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.52, 0.5, 0.2, 0.2]])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.05, 0.05]])
    queries, targets = TopKMatcher(iou_weight=1.0)(torch.zeros(2, 1), boxes, torch.zeros(2).long(), target_boxes)
    assert (queries.tolist(), targets.tolist()) == ([0], [0])


def test_without_any_good_query_each_target_gets_its_best() -> None:
    target_boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    boxes = torch.tensor([[0.35, 0.4, 0.1, 0.1], [0.75, 0.8, 0.1, 0.1], [0.74, 0.75, 0.1, 0.1]])
    matcher = TopKMatcher(threshold=0.99)
    queries, targets = matcher(torch.zeros(3, 1), boxes, torch.zeros(2).long(), target_boxes)
    assert (queries.tolist(), targets.tolist()) == ([0, 2], [0, 1])


@pytest.mark.parametrize("where", ["logits", "boxes"])
def test_predictions_that_are_not_finite_are_never_matched(where: str) -> None:
    logits, boxes, labels, target_boxes = draw(queries=8)
    broken = logits if where == "logits" else boxes
    broken[[0, 3]] = torch.nan
    queries, _ = TopKMatcher()(logits, boxes, labels, target_boxes)
    assert len(queries) > 0
    assert not {0, 3} & set(queries.tolist())
    broken[:] = torch.nan
    assert [len(x) for x in TopKMatcher()(logits, boxes, labels, target_boxes)] == [0, 0]
    assert TopKMatcher().propose(logits[None], boxes[None], labels, target_boxes)[-1].tolist() == [8]


def test_without_targets_nothing_is_matched_and_more_targets_than_queries_are_served() -> None:
    logits, boxes, labels, target_boxes = draw(queries=3, targets=20)
    assert [len(x) for x in TopKMatcher()(logits, boxes, labels[:0], target_boxes[:0])] == [0, 0]
    queries, targets = TopKMatcher()(logits, boxes, labels, target_boxes)
    assert len(queries) > 0
    assert queries.max() < 3
    assert targets.max() < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_weight": 1.2}, r"iou_weight must be a number in \[0, 1\], got 1.2"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"max_positives": 0}, "max_positives must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopKMatcher(**options)

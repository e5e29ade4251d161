"""The order in which proposals become queries."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.layers import cxcywh_to_xyxy
from hdetr_d2.modeling.queries.ranking import best_tokens, best_valid_tokens, stepped_back
from hdetr_d2.ops.onnx import onnx_translations


def boxes_at(places: list[float]) -> Tensor:
    """Squares of 0.1 at these horizontal places, (1, n, 4) cxcywh; neighbours at 0.02 overlap by two thirds."""
    return torch.tensor([[[place, 0.5, 0.1, 0.1] for place in places]])


def test_proposals_that_overlap_a_better_one_come_behind_all_others_in_their_order() -> None:
    boxes = boxes_at([0.1, 0.12, 0.5, 0.14, 0.52, 0.9])
    ranked = torch.tensor([[40, 10, 30, 20, 0, 50]])
    valid = torch.ones(1, 60, dtype=torch.bool)
    # 0.14 overlaps 0.12, which steps back itself, by two thirds, and 0.1 by 0.06 / 0.14
    assert stepped_back(ranked, boxes, valid, 0.5).tolist() == [[40, 30, 20, 50, 10, 0]]
    assert stepped_back(ranked, boxes, valid, 0.4).tolist() == [[40, 30, 50, 10, 20, 0]]
    assert stepped_back(ranked, boxes, valid, 0.7).tolist() == ranked.tolist()


def test_tokens_that_are_not_valid_come_behind_everything() -> None:
    boxes = boxes_at([0.1, 0.12, 0.5, 0.9])
    valid = torch.tensor([[True, True, False, True]])
    assert stepped_back(torch.tensor([[0, 1, 3, 2]]), boxes, valid, 0.5).tolist() == [[0, 3, 1, 2]]


@pytest.mark.parametrize("pairs", [False, True])
def test_of_equal_scores_the_first_token_comes_first_and_padding_last(pairs: bool) -> None:
    scores = torch.tensor([[[1.0], [3.0], [3.0], [9.0], [3.0], [2.0]]])
    valid = torch.tensor([[True, True, True, False, True, True]])
    assert best_valid_tokens(scores, valid, 9, pairs=pairs).tolist() == [[1, 2, 4, 5, 0, 3]]
    assert best_valid_tokens(scores, valid, 4, pairs=pairs).tolist() == [[1, 2, 4, 5]]


@pytest.mark.parametrize("pairs", [False, True])
def test_valid_tokens_without_ties_are_ranked_as_published(pairs: bool) -> None:
    scores = torch.randperm(2 * 30 * 3, generator=torch.Generator().manual_seed(0)).view(2, 30, 3).float()
    valid = torch.ones(2, 30, dtype=torch.bool)
    for wanted in (1, 7, 30, 100):
        expected = best_tokens(scores, wanted, pairs=pairs)
        assert torch.equal(best_valid_tokens(scores, valid, wanted, pairs=pairs), expected)


def test_the_first_queries_are_the_greedy_choice_of_plain_python() -> None:
    generator = torch.Generator().manual_seed(3)
    boxes = torch.cat([torch.rand(1, 80, 2, generator=generator), 0.3 * torch.rand(1, 80, 2, generator=generator)], -1)
    ranked = torch.randperm(80, generator=generator)[None]
    found = stepped_back(ranked, boxes, torch.ones(1, 80, dtype=torch.bool), 0.45)[0].tolist()
    kept: list[int] = []
    corners = cxcywh_to_xyxy(boxes[0]).tolist()
    for place in range(80):
        if all(iou(corners[place], corners[other]) <= 0.45 for other in kept):
            kept.append(place)
    others = [place for place in range(80) if place not in kept]
    assert others
    assert found == [int(ranked[0, place]) for place in [*kept, *others]]


def iou(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return width * height / (sum(areas) - width * height)


class Ranking(nn.Module):
    """Scores and boxes to the order in which tokens become queries."""

    def forward(self, scores: Tensor, boxes: Tensor) -> Tensor:
        valid = scores.amax(-1) > 0
        best = best_valid_tokens(scores, valid, 12, pairs=False)
        of_best = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        return stepped_back(best, of_best, valid, 0.4567)  # which is no overlap of boxes of sixteenths


def test_the_ranking_is_the_same_in_onnxruntime_ties_included(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (3, 20, 2), generator=generator).float()
    boxes = torch.randint(1, 9, (3, 20, 4), generator=generator) / 16  # without rounding
    file, batch = tmp_path / "ranking.onnx", torch.export.Dim("batch")
    torch.onnx.export(
        Ranking().eval(),
        (scores[:2], boxes[:2]),
        str(file),
        dynamo=True,
        opset_version=18,
        input_names=["scores", "boxes"],
        dynamic_shapes=({0: batch}, {0: batch}),
        custom_translation_table=onnx_translations(),
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"scores": scores.numpy(), "boxes": boxes.numpy()})
    expected = Ranking()(scores, boxes)
    assert torch.equal(torch.from_numpy(found), expected)
    assert not torch.equal(expected, best_valid_tokens(scores, scores.amax(-1) > 0, 12, pairs=False))

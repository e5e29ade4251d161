"""IoU-aware losses against the authors' values, plain formulas and their gradients."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdetr_d2.losses import ClassificationLoss, IoUAwareBCE, MatchabilityAwareLoss, Positives, VarifocalLoss
from hdetr_d2.losses.iou_aware import rank_in_target


def draw(layers: int = 3, rows: int = 12, classes: int = 5) -> tuple[Tensor, Positives]:
    """Logits, and matches in which targets have from none to four queries."""
    logits = 2 * torch.randn(layers, rows, classes, dtype=torch.float64)
    layer = torch.tensor([0, 0, 0, 0, 0, 2, 2, 2])
    row = torch.tensor([3, 1, 7, 0, 9, 3, 4, 5])
    target = torch.tensor([0, 1, 0, 0, 0, 1, 1, 2])
    label = torch.tensor([4, 2, 0])[target]
    return logits, Positives(layer, row, label, torch.rand(8, dtype=torch.float64), target)


def scatter(values: Tensor, positives: Positives, shape: torch.Size) -> Tensor:
    """Values of the matched entries in a tensor of zeros."""
    dense = torch.zeros(shape, dtype=torch.float64)
    dense[positives.layer, positives.row, positives.label] = values.to(dense.dtype)
    return dense


def bce(p: Tensor, target: Tensor) -> Tensor:
    return -(target * p.log() + (1 - target) * (1 - p).log())


def plain_varifocal(logits: Tensor, positives: Positives) -> Tensor:
    p = logits.sigmoid()
    q = scatter(positives.iou, positives, logits.shape)
    hot = scatter(torch.ones(8), positives, logits.shape)
    weight = 0.75 * p.detach() ** 2 * (1 - hot) + q
    return (weight * bce(p, q)).sum((1, 2))


def plain_matchability(logits: Tensor, positives: Positives) -> Tensor:
    p = logits.sigmoid()
    q = scatter(positives.iou**1.5, positives, logits.shape)
    hot = scatter(torch.ones(8), positives, logits.shape)
    return (torch.where(hot == 1, 1.0, p.detach() ** 1.5) * bce(p, q)).sum((1, 2))


def plain_iou_aware(logits: Tensor, positives: Positives) -> Tensor:
    p = logits.sigmoid()
    matched = list(zip(positives.layer.tolist(), positives.row.tolist(), positives.label.tolist()))
    targets = list(zip(positives.layer.tolist(), positives.target.tolist()))
    t = [max(0.01, p[entry].item() ** 0.25 * iou**0.75) for entry, iou in zip(matched, positives.iou.tolist())]
    loss = (p**2 * -(1 - p).log()).clone()
    for i, entry in enumerate(matched):
        rank = sum(t[j] > t[i] for j in range(len(t)) if targets[j] == targets[i])
        learned = torch.tensor(t[i] * math.exp(-rank / 1.5), dtype=torch.float64)
        loss[entry] = bce(p[entry], learned)
    return loss.sum((1, 2))


PLAIN = [
    (VarifocalLoss(), plain_varifocal),
    (MatchabilityAwareLoss(), plain_matchability),
    (IoUAwareBCE(decay=1.5), plain_iou_aware),
]


@pytest.mark.parametrize(("loss", "plain"), PLAIN, ids=["vfl", "mal", "iabce"])
def test_loss_and_gradient_of_each_layer_are_those_of_the_plain_formula(
    loss: ClassificationLoss, plain: Callable[[Tensor, Positives], Tensor]
) -> None:
    logits, positives = draw()
    layer_weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    results = []
    for function in (loss, plain):
        x = logits.clone().requires_grad_()
        value = function(x, positives)
        (gradient,) = torch.autograd.grad((value * layer_weights).sum(), x)
        results.append((value.detach(), gradient))
    for ours, expected in zip(*results):  # the qualities are float32
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "vfl", "vfl_background", "mal", "mal_background"),
    [
        (0.1, 0.9, 1.874576, 0.000790, 1.981384, 0.003332),
        (0.5, 0.5, 0.346574, 0.129965, 0.693147, 0.245065),
        (0.9, 0.1, 0.208286, 1.398820, 2.233103, 1.965982),
        (0.01, 0.05, 0.011990, 0.000001, 0.061425, 0.000010),
        (0.3, 0.8, 0.827611, 0.024076, 0.962952, 0.058608),
    ],
)
def test_losses_of_one_entry_have_the_authors_values(
    p: float, q: float, vfl: float, vfl_background: float, mal: float, mal_background: float
) -> None:
    logits = torch.tensor([[[math.log(p / (1 - p))]]], dtype=torch.float64)
    zero, none = torch.tensor([0]), torch.zeros(0, dtype=torch.int64)
    matched, unmatched = Positives(zero, zero, zero, torch.tensor([q])), Positives(none, none, none, torch.zeros(0))
    for loss, positive, background in (
        (VarifocalLoss(), vfl, vfl_background),
        (MatchabilityAwareLoss(), mal, mal_background),
    ):
        assert loss(logits, matched).item() == pytest.approx(positive, abs=1e-6)
        assert loss(logits, unmatched).item() == pytest.approx(background, abs=1e-6)


def test_losses_and_gradients_equal_those_of_deims_code(shared_folder: Path) -> None:
    path = shared_folder / "parity/family/mal_fixture.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    data = np.load(path)
    rows_of_image = data["in/logits"].shape[1]
    count = float(data["in/num_boxes"])
    rows, labels, ious = [], [], []
    for image in range(len(data["in/logits"])):
        query, target = torch.from_numpy(data[f"in/indices/{image}"])
        rows.append(query + image * rows_of_image)
        labels.append(torch.from_numpy(data[f"in/labels/{image}"])[target])
        ious.append(torch.from_numpy(data[f"in/iou/{image}"]))
    row = torch.cat(rows)
    positives = Positives(torch.zeros_like(row), row, torch.cat(labels), torch.cat(ious))
    cases = json.loads(data["config.json"].tobytes())["cases"]
    for index, case in enumerate(cases):
        loss = (
            VarifocalLoss(alpha=case["alpha"], gamma=case["gamma"])
            if case["loss"] == "vfl"
            else MatchabilityAwareLoss(gamma=case["gamma"], alpha=case["mal_alpha"])
        )
        logits = torch.from_numpy(data["in/logits"]).requires_grad_()
        value = loss(logits.flatten(0, 1)[None], positives) / count
        value.backward()
        assert value.item() == pytest.approx(float(data[f"case/{index}/loss"]), rel=1e-5)
        torch.testing.assert_close(
            logits.grad, torch.from_numpy(data[f"case/{index}/grad_logits"]), rtol=1e-4, atol=1e-6
        )


def test_rank_counts_the_better_matches_of_the_same_target_in_the_same_layer() -> None:
    quality = torch.rand(40)
    layer, target = torch.randint(3, (40,)), torch.randint(4, (40,))
    rival = (layer[:, None] == layer) & (target[:, None] == target)
    better = rival & (quality[None, :] > quality[:, None])
    assert rank_in_target(quality, layer, target).tolist() == better.sum(1).tolist()


def test_rank_of_equal_matches_is_their_order_and_of_none_is_empty() -> None:
    same = torch.zeros(3, dtype=torch.int64)
    assert rank_in_target(torch.ones(3), same, same).tolist() == [0, 1, 2]
    assert rank_in_target(torch.ones(0), same[:0], same[:0]).tolist() == []


def test_matches_without_known_targets_are_not_ranked() -> None:
    logits, positives = draw()
    unranked = Positives(positives.layer, positives.row, positives.label, positives.iou)
    torch.testing.assert_close(IoUAwareBCE(decay=1.5)(logits, unranked), IoUAwareBCE()(logits, positives))
    assert not torch.equal(IoUAwareBCE(decay=1.5)(logits, positives), IoUAwareBCE()(logits, positives))


def test_box_losses_decay_with_the_rank_where_asked() -> None:
    logits, positives = draw()
    assert IoUAwareBCE(decay=1.5).box_weights(logits, positives) is None
    assert IoUAwareBCE(decay_boxes="all").box_weights(logits, positives) is None
    p = logits[positives.layer, positives.row, positives.label].sigmoid()
    quality = p**0.25 * positives.iou**0.75
    expected = torch.exp(-rank_in_target(quality, positives.layer, positives.target) / 1.5)
    l1, giou = IoUAwareBCE(decay=1.5, decay_boxes="all").box_weights(logits, positives)
    torch.testing.assert_close((l1, giou), (expected, expected), check_dtype=False)
    l1, giou = IoUAwareBCE(decay=1.5, decay_boxes="giou").box_weights(logits, positives)
    torch.testing.assert_close((l1, giou), (torch.ones_like(expected), expected), check_dtype=False)
    assert expected.max() == 1
    assert expected.min() < 0.2


@pytest.mark.parametrize("loss", [loss for loss, _ in PLAIN], ids=["vfl", "mal", "iabce"])
def test_a_loss_that_is_not_told_the_iou_says_so(loss: ClassificationLoss) -> None:
    logits, positives = draw()
    with pytest.raises(ValueError, match="needs the IoU"):
        loss(logits, Positives(positives.layer, positives.row, positives.label))


@pytest.mark.parametrize("loss", [loss for loss, _ in PLAIN], ids=["vfl", "mal", "iabce"])
@pytest.mark.parametrize("extreme", [-500.0, 500.0])
def test_saturated_logits_have_finite_losses_and_gradients(loss: ClassificationLoss, extreme: float) -> None:
    _, positives = draw()
    logits = torch.full((3, 12, 5), extreme, requires_grad=True)
    value = loss(logits, positives)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": -1.0}, {"decay_boxes": "l1"}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="decay"):
        IoUAwareBCE(**options)

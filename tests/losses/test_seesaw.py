"""Seesaw loss against the paper's formula, entry by entry, and its counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hdetr_d2.losses import Positives, SeesawLoss, SigmoidFocalLoss
from hdetr_d2.structures import BatchedTargets, Targets


def positives_of(*entries: tuple[int, int, int], classes: Tensor | None = None) -> Positives:
    return Positives(*torch.tensor(entries, dtype=torch.int64).view(-1, 3).unbind(1), classes=classes)


def with_counts(counts: list[int], **settings: float) -> SeesawLoss:
    loss = SeesawLoss(num_classes=len(counts), **settings)
    loss.counts.copy_(torch.tensor(counts))
    return loss


def entry_by_entry(
    logits: Tensor, labels: dict[tuple[int, int], int], counts: list[int], p: float, q: float
) -> list[float]:
    """Floats and loops, from the paper's definitions of both factors."""
    totals = []
    for layer in range(logits.shape[0]):
        total = 0.0
        for row in range(logits.shape[1]):
            scores = [1 / (1 + math.exp(-x)) for x in logits[layer, row].tolist()]
            own = labels.get((layer, row))
            for j, score in enumerate(scores):
                if j == own:
                    total += 0.25 * (1 - score) ** 2 * -math.log(score)
                    continue
                factor = 1.0
                if own is not None:
                    if counts[own] > counts[j]:
                        factor *= (max(counts[j], 1) / counts[own]) ** p
                    if score > scores[own]:
                        factor *= (score / max(scores[own], 0.01)) ** q
                total += factor * 0.75 * score**2 * -math.log(1 - score)
        totals.append(total)
    return totals


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.8, 0.0), (0.0, 2.0), (0.5, 1.0)])
def test_the_loss_is_the_formula(p: float, q: float) -> None:
    logits = 2 * torch.randn(2, 5, 4, dtype=torch.float64)
    entries = [(0, 1, 2), (0, 4, 0), (1, 0, 3), (1, 1, 1)]
    counts = [900, 0, 30, 2]
    loss = with_counts(counts, p=p, q=q)(logits, positives_of(*entries))
    expected = entry_by_entry(logits, {(layer, row): label for layer, row, label in entries}, counts, p, q)
    assert loss.tolist() == pytest.approx(expected)


def test_without_both_factors_it_is_focal_loss() -> None:
    logits, positives = torch.randn(3, 7, 6), positives_of((0, 1, 2), (2, 6, 5))
    loss = with_counts([1, 5, 9, 100, 2, 3], p=0.0, q=0.0, alpha=0.4, gamma=1.0)
    torch.testing.assert_close(loss(logits, positives), SigmoidFocalLoss(alpha=0.4, gamma=1.0)(logits, positives))


def test_factors_are_constants_for_the_gradient() -> None:
    logits = torch.randn(1, 1, 3, dtype=torch.float64, requires_grad=True)
    loss, positives = with_counts([50, 5, 500]), positives_of((0, 0, 0))
    (gradient,) = torch.autograd.grad(loss(logits, positives).sum(), logits)
    (plain,) = torch.autograd.grad(SigmoidFocalLoss()(logits, positives).sum(), logits)
    ratio = (gradient / plain)[0, 0]
    scores = logits.detach().sigmoid()[0, 0]
    compensation = (scores / scores[0]).clamp(min=1.0) ** 2
    torch.testing.assert_close(ratio, torch.tensor([1.0, 0.1**0.8, 1.0], dtype=torch.float64) * compensation)


def test_chosen_classes_have_their_own_counts() -> None:
    logits, columns = torch.randn(2, 4, 5), torch.tensor([0, 3, 4])
    whole = with_counts([7, 1, 1, 90, 900])
    part = with_counts([7, 90, 900])
    entries = [(0, 2, 1), (1, 0, 2)]
    torch.testing.assert_close(
        whole(logits[..., columns], positives_of(*entries, classes=columns)),
        part(logits[..., columns], positives_of(*entries)),
    )


def test_objects_of_each_class_are_counted_once_a_step_and_saved() -> None:
    loss = SeesawLoss(num_classes=4)
    labels: tuple[list[int], ...] = ([3, 3, 0], [], [3])
    targets = BatchedTargets.of([Targets(torch.tensor(x, dtype=torch.int64), torch.rand(len(x), 4)) for x in labels])
    for _ in range(2):
        assert loss.begin_step(targets) is None
        loss(torch.randn(2, 6, 4), positives_of((0, 0, 3), (1, 1, 3)))
    assert loss.counts.tolist() == [2, 0, 0, 6]
    restored = SeesawLoss(num_classes=4)
    restored.load_state_dict(loss.state_dict())
    assert restored.counts.tolist() == [2, 0, 0, 6]


def test_a_class_that_never_occurred_and_sure_logits_stay_finite() -> None:
    logits = torch.tensor([[[90.0, -90.0, 0.0]]], requires_grad=True)
    loss = with_counts([0, 10**9, 0])(logits, positives_of((0, 0, 1)))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()

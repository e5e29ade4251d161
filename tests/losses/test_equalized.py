"""Equalized focal loss against the paper's formula, and the gradients that it adds up against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hdetr_d2.losses import EqualizedFocalLoss, Positives, SigmoidFocalLoss
from hdetr_d2.structures import BatchedTargets

ENTRIES = [(0, 1, 2), (0, 7, 4), (2, 0, 0), (2, 1, 0), (2, 3, 1)]


def positives_of(*entries: tuple[int, int, int], classes: Tensor | None = None) -> Positives:
    return Positives(*torch.tensor(entries, dtype=torch.int64).view(-1, 3).unbind(1), classes=classes)


def entries_of_the_formula(logits: Tensor, balance: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The paper's definition at every entry, and which entries are positive."""
    target = torch.zeros_like(logits)
    for layer, row, label in ENTRIES:
        target[layer, row, label] = 1.0
    p_t = torch.where(target == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha_t = torch.where(target == 1, 0.25, 0.75)
    focus = 2.0 + scale * (1 - balance)
    return -alpha_t * (focus / 2.0) * (1 - p_t) ** focus * p_t.log(), target


@pytest.mark.parametrize("scale", [0.0, 4.0, 8.0])
def test_loss_and_gradient_are_those_of_the_formula(scale: float) -> None:
    logits = 2 * torch.randn(3, 8, 5, dtype=torch.float64)
    balance = torch.tensor([1.0, 0.5, 0.01, 0.0, 0.9], dtype=torch.float64)
    loss = EqualizedFocalLoss(num_classes=5, scale=scale)
    loss.balance.copy_(balance)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    results = []
    for function in (
        lambda x: loss(x, positives_of(*ENTRIES)),
        lambda x: entries_of_the_formula(x, balance, scale)[0].sum((1, 2)),
    ):
        x = logits.clone().requires_grad_()
        value = function(x)
        results.append((value.detach(), torch.autograd.grad((value * weights).sum(), x)[0]))
    for ours, plain in zip(*results):
        torch.testing.assert_close(ours, plain)


def test_balanced_classes_have_focal_loss() -> None:
    logits, positives = torch.randn(3, 8, 5), positives_of(*ENTRIES)
    loss = EqualizedFocalLoss(num_classes=5, alpha=0.4, gamma=1.5)  # nothing has been seen yet
    torch.testing.assert_close(loss(logits, positives), SigmoidFocalLoss(alpha=0.4, gamma=1.5)(logits, positives))


def test_the_sums_are_of_autograds_gradients_for_the_logits() -> None:
    loss = EqualizedFocalLoss(num_classes=5)
    loss.balance.copy_(torch.tensor([1.0, 0.5, 0.01, 0.0, 0.9]))
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for _ in range(3):
        logits = torch.randn(3, 8, 5, dtype=torch.float64, requires_grad=True)
        losses, target = entries_of_the_formula(logits, loss.balance, 8.0)
        (gradient,) = torch.autograd.grad(losses.sum() / len(ENTRIES), logits)
        expected += torch.stack([(gradient.abs() * kind).sum((0, 1)) for kind in (target, 1 - target)])
        loss.observe(logits, positives_of(*ENTRIES))
    torch.testing.assert_close(torch.stack([loss.positive_gradient, loss.negative_gradient]), expected)


def test_the_balance_changes_between_steps_only_and_is_saved() -> None:
    loss = EqualizedFocalLoss(num_classes=5)
    loss.observe(torch.randn(3, 8, 5), positives_of(*ENTRIES))
    assert torch.equal(loss.balance, torch.ones(5, dtype=torch.float64))
    loss.begin_step(BatchedTargets.of([]))
    ratio = (loss.positive_gradient / loss.negative_gradient).clamp(max=1.0)
    torch.testing.assert_close(loss.balance, ratio)
    assert loss.balance[3] == 0  # never an object
    restored = EqualizedFocalLoss(num_classes=5)
    restored.load_state_dict(loss.state_dict())
    torch.testing.assert_close(restored.balance, loss.balance)
    torch.testing.assert_close(restored.negative_gradient, loss.negative_gradient)


def test_chosen_classes_have_their_own_sums() -> None:
    columns = torch.tensor([1, 4, 6])
    whole, part = EqualizedFocalLoss(num_classes=7), EqualizedFocalLoss(num_classes=3)
    whole.balance[columns] = torch.tensor([0.2, 0.9, 0.5], dtype=torch.float64)
    part.balance.copy_(whole.balance[columns])
    logits, entries = torch.randn(2, 4, 3), [(0, 2, 1), (1, 0, 2)]
    torch.testing.assert_close(
        whole(logits, positives_of(*entries, classes=columns)), part(logits, positives_of(*entries))
    )
    whole.observe(logits, positives_of(*entries, classes=columns))
    part.observe(logits, positives_of(*entries))
    torch.testing.assert_close(whole.negative_gradient[columns], part.negative_gradient)
    assert whole.negative_gradient.sum() == part.negative_gradient.sum() > 0


def test_the_loss_itself_adds_nothing_and_no_object_is_no_fault() -> None:
    loss = EqualizedFocalLoss(num_classes=5)
    assert loss(torch.randn(1, 3, 5), positives_of()).isfinite().all()
    assert loss.negative_gradient.sum() == 0
    loss.observe(torch.randn(1, 3, 5), positives_of())
    assert loss.negative_gradient.sum() > 0
    assert loss.positive_gradient.sum() == 0


def test_an_exponent_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma"):
        EqualizedFocalLoss(num_classes=5, gamma=0.0)

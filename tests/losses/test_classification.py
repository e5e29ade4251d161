"""Focal loss against published numbers, plain autograd and finite differences; what holds for every class loss."""

import math

import pytest
import torch
from torch import Tensor

from hdetr_d2 import registry
from hdetr_d2.losses import EqualizedFocalLoss, FederatedLoss, Positives, SeesawLoss, SigmoidFocalLoss
from hdetr_d2.structures import BatchedTargets, Targets


def positives_of(*entries: tuple[int, int, int]) -> Positives:
    """(layer, row, label) of each matched query."""
    columns = torch.tensor(entries, dtype=torch.int64).view(-1, 3).unbind(1)
    return Positives(*columns)


def focal_entry_by_entry(logits: Tensor, positives: Positives, alpha: float, gamma: float) -> Tensor:
    """The paper's formula with a one-hot target of every layer, differentiated by autograd."""
    target = torch.zeros_like(logits)
    target[positives.layer, positives.row, positives.label] = 1.0
    p = logits.sigmoid()
    correct = torch.where(target == 1, p, 1 - p)
    weight = torch.where(target == 1, torch.full_like(p, alpha), torch.full_like(p, 1 - alpha))
    return (-weight * (1 - correct) ** gamma * correct.log()).sum((1, 2))


@pytest.mark.parametrize(
    ("p", "positive", "q", "negative"),
    [
        (0.1, 0.466273, 0.1, 0.000790),
        (0.5, 0.043322, 0.5, 0.129965),
        (0.9, 0.000263, 0.9, 1.398820),
        (0.01, 1.128382, 0.01, 0.000001),
        (0.3, 0.147487, 0.3, 0.024076),
    ],
)
def test_focal_loss_has_the_published_values(p: float, positive: float, q: float, negative: float) -> None:
    logits = torch.tensor([[[math.log(p / (1 - p))]]])
    loss = SigmoidFocalLoss()
    assert loss(logits, positives_of((0, 0, 0))).tolist() == pytest.approx([positive], abs=1e-6)
    logits = torch.tensor([[[math.log(q / (1 - q))]]])
    assert loss(logits, positives_of()).tolist() == pytest.approx([negative], abs=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 1.0), (0.4, 3.0), (0.25, 0.0)])
def test_loss_and_gradient_of_each_layer_are_those_of_the_plain_formula(alpha: float, gamma: float) -> None:
    logits = 3 * torch.randn(3, 8, 5, dtype=torch.float64)
    positives = positives_of((0, 1, 2), (0, 7, 4), (2, 0, 0), (2, 1, 0), (2, 3, 1))
    layer_weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    results = []
    for function in (
        SigmoidFocalLoss(alpha=alpha, gamma=gamma),
        lambda x, y: focal_entry_by_entry(x, y, alpha, gamma),
    ):
        x = logits.clone().requires_grad_()
        value = function(x, positives)
        (gradient,) = torch.autograd.grad((value * layer_weights).sum(), x)
        results.append((value.detach(), gradient))
    for ours, plain in zip(*results):
        torch.testing.assert_close(ours, plain)


def test_gradient_is_that_of_finite_differences() -> None:
    logits = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    positives = positives_of((0, 1, 2), (1, 3, 0))
    assert torch.autograd.gradcheck(lambda x: SigmoidFocalLoss()(x, positives), (logits,))


@pytest.mark.parametrize("extreme", [-500.0, -90.0, 90.0, 500.0])
def test_saturated_logits_have_finite_losses_and_gradients(extreme: float) -> None:
    logits = torch.full((1, 4, 3), extreme, requires_grad=True)
    loss = SigmoidFocalLoss()(logits, positives_of((0, 2, 1)))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


LOSSES = {
    "FederatedLoss": lambda: FederatedLoss(image_counts=[1] * 6, loss=EqualizedFocalLoss(num_classes=6), num_chosen=6),
    "EqualizedFocalLoss": lambda: EqualizedFocalLoss(num_classes=6),
    "SeesawLoss": lambda: SeesawLoss(num_classes=6),
}


@pytest.mark.parametrize("name", registry.names("loss"))
def test_computing_a_loss_changes_nothing_and_gives_the_same_again(name: str) -> None:
    loss = LOSSES.get(name, registry.find("loss", name))().train()
    logits = torch.randn(2, 5, 6)
    places = torch.tensor([0, 0, 1]), torch.tensor([1, 4, 0])
    positives = Positives(
        *places, torch.tensor([2, 3, 3]), torch.tensor([0.4, 0.9, 0.7]), target=torch.tensor([0, 1, 0])
    )
    loss.begin_step(BatchedTargets.of([Targets(torch.tensor([2, 3]), torch.rand(2, 4))]))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    attributes = {id(module): dict(vars(module)) for module in loss.modules()}
    first = loss(logits, positives)
    assert torch.equal(loss(logits, positives), first)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    for module in loss.modules():
        former, now = attributes[id(module)], vars(module)
        assert former.keys() == now.keys()
        assert all(former[key] is now[key] for key in now)


def test_a_loss_written_for_the_former_way_to_choose_classes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Chooser: choose_classes.* is now begin_step\(targets\)"):
        type("Chooser", (SigmoidFocalLoss,), {"choose_classes": lambda self, targets, num_classes: None})

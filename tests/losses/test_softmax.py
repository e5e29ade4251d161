"""Softmax cross entropy against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from hdetr_d2.losses import Positives, SoftmaxCrossEntropy


def matches(*entries: tuple[int, int, int]) -> Positives:
    """(layer, row, label) of each matched query."""
    return Positives(*torch.tensor(entries, dtype=torch.int64).view(-1, 3).unbind(1))


@pytest.mark.parametrize("no_object_weight", [0.1, 1.0])
def test_loss_and_gradient_are_those_of_pytorchs_weighted_mean(no_object_weight: float) -> None:
    layers, rows, classes = 3, 9, 4
    logits = 2 * torch.randn(layers, rows, classes + 1, dtype=torch.float64)
    entries = [(0, 1, 2), (0, 7, 3), (2, 0, 0), (2, 1, 0), (2, 3, 1)]
    label = torch.full((layers, rows), classes)
    for layer, row, chosen in entries:
        label[layer, row] = chosen
    weight = torch.ones(classes + 1, dtype=torch.float64)
    weight[-1] = no_object_weight
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = SoftmaxCrossEntropy(no_object_weight=no_object_weight)(ours, matches(*entries))
    expected = torch.stack([F.cross_entropy(x, y, weight) for x, y in zip(theirs, label)])
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_without_targets_all_queries_learn_no_object() -> None:
    logits = torch.zeros(2, 5, 4, requires_grad=True)
    value = SoftmaxCrossEntropy()(logits, matches())
    assert value.tolist() == pytest.approx([1.3862944] * 2)
    value.sum().backward()
    assert (logits.grad[..., -1] < 0).all()
    assert (logits.grad[..., :-1] > 0).all()


def test_a_value_does_not_depend_on_how_often_the_batch_is_repeated() -> None:
    logits = torch.randn(1, 4, 3)
    once = SoftmaxCrossEntropy()(logits, matches((0, 1, 0)))
    twice = SoftmaxCrossEntropy()(logits.repeat(1, 2, 1), matches((0, 1, 0), (0, 5, 0)))
    torch.testing.assert_close(once, twice)


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no_object_weight"):
        SoftmaxCrossEntropy(no_object_weight=0.0)

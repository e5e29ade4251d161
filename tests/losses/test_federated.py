"""Which classes a federated loss chooses, and what it computes on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from hdetr_d2.losses import EqualizedFocalLoss, FederatedLoss, Positives, SeesawLoss, SigmoidFocalLoss
from hdetr_d2.structures import BatchedTargets, Targets


def targets_of(*labels: list[int]) -> BatchedTargets:
    return BatchedTargets.of([Targets(torch.tensor(x, dtype=torch.int64), torch.rand(len(x), 4)) for x in labels])


def positives_of(*entries: tuple[int, int, int], **more: torch.Tensor) -> Positives:
    return Positives(*torch.tensor(entries, dtype=torch.int64).view(-1, 3).unbind(1), **more)


def test_the_classes_of_the_targets_are_filled_up_in_ascending_order() -> None:
    loss = FederatedLoss(image_counts=range(1, 201), num_chosen=50)
    chosen = loss.begin_step(targets_of([150, 3, 3], [], [77]))
    assert chosen.dtype == torch.int64
    assert len(chosen) == 50
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert {3, 77, 150} <= set(chosen.tolist())


def test_others_are_drawn_by_the_root_of_their_image_counts() -> None:
    counts = [0, 100, 400, 900, 5000]
    loss = FederatedLoss(image_counts=counts, num_chosen=2)
    seen = Counter(int(c) for _ in range(3000) for c in loss.begin_step(targets_of([4])) if c != 4)
    assert set(seen) == {1, 2, 3}  # roots 10, 20, 30
    for label, share in ((1, 1 / 6), (2, 2 / 6), (3, 3 / 6)):
        assert seen[label] / 3000 == pytest.approx(share, abs=0.04)


def test_many_classes_in_the_batch_are_all_and_alone() -> None:
    loss = FederatedLoss(image_counts=[1] * 100, num_chosen=5)
    assert loss.begin_step(targets_of(list(range(20, 30)), [3])).tolist() == [3, *range(20, 30)]


def test_few_classes_are_all_computed() -> None:
    assert FederatedLoss(image_counts=[1] * 50, num_chosen=50).begin_step(targets_of([3])) is None


def test_a_class_without_images_is_drawn_by_no_power_and_may_still_be_in_the_batch() -> None:
    for power in (0.0, 0.5, 1.0):
        loss = FederatedLoss(image_counts=[0, 0, 5, 5, 0, 0, 0], num_chosen=4, power=power)
        assert loss.begin_step(targets_of([6])).tolist() == [2, 3, 6]
    assert FederatedLoss(image_counts=[0] * 7, num_chosen=4).begin_step(targets_of([])) is None


def test_the_global_seed_decides_and_its_state_resumes() -> None:
    loss, targets = FederatedLoss(image_counts=range(1, 301), num_chosen=20), targets_of([7])
    torch.manual_seed(5)
    first = [loss.begin_step(targets) for _ in range(3)]
    state = torch.get_rng_state()
    later = [loss.begin_step(targets) for _ in range(3)]
    torch.set_rng_state(state)
    assert all(torch.equal(loss.begin_step(targets), chosen) for chosen in later)
    torch.manual_seed(5)
    assert all(torch.equal(loss.begin_step(targets), chosen) for chosen in first)
    assert not torch.equal(first[0], first[1])


def test_what_cannot_be_drawn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="num_chosen"):
        FederatedLoss(image_counts=[1], num_chosen=0)
    with pytest.raises(ValueError, match=r"dataset\.image_counts"):
        FederatedLoss(image_counts=None).begin_step(targets_of([0]))
    with pytest.raises(ValueError, match=r"image_counts\[1\] must be at least 0, got -1"):
        FederatedLoss(image_counts=[1, -1])
    with pytest.raises(ValueError, match="is of 2 classes, the model has 3"):
        FederatedLoss(image_counts=[1] * 3, loss=SeesawLoss(num_classes=2)).check(num_classes=3)
    with pytest.raises(ValueError, match="2 classes, the model has 3"):
        FederatedLoss(image_counts=[1, 2]).check(num_classes=3)


def test_the_loss_of_all_classes_is_the_plain_one() -> None:
    logits, positives = torch.randn(2, 6, 9), positives_of((0, 1, 4), (1, 5, 0))
    plain = SigmoidFocalLoss(alpha=0.3, gamma=1.5)
    torch.testing.assert_close(
        FederatedLoss(image_counts=[1] * 9, loss=plain)(logits, positives), plain(logits, positives)
    )


@pytest.mark.parametrize("inner", [None, SeesawLoss(num_classes=6), EqualizedFocalLoss(num_classes=6)])
def test_a_class_that_was_verified_to_be_absent_alone_is_background(inner: SeesawLoss | None) -> None:
    logits = torch.randn(2, 4, 3, requires_grad=True)  # two images of two queries, three chosen classes
    verified = torch.tensor([[True, False, True]] * 2 + [[False, False, True]] * 2)
    positives = positives_of((0, 0, 1), (1, 3, 2), classes=torch.tensor([0, 2, 5]))
    loss = FederatedLoss(image_counts=[1] * 6, loss=inner, verified_only=True).eval()
    everything = loss(logits, positives)
    part = loss(logits, replace(positives, verified=verified))
    assert (part < everything).all()
    (gradient,) = torch.autograd.grad(part.sum(), logits)
    expected = verified.expand(2, -1, -1).clone()
    expected[0, 0, 1] = True  # the object itself, though its class is annotated in part
    assert torch.equal(gradient != 0, expected)
    assert loss.needs_verified
    assert not FederatedLoss(image_counts=None).needs_verified


def test_the_proposals_loss_is_that_of_the_loss_inside() -> None:
    inner = SeesawLoss(num_classes=3)
    assert FederatedLoss(image_counts=None, loss=inner).of_proposals() is inner.focal
    plain = FederatedLoss(image_counts=None)
    assert plain.of_proposals() is plain.loss

"""A model that learns some classes in a step: the same loss as with all of them, cut to those columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.losses import ClassificationLoss, EqualizedFocalLoss, FederatedLoss, Positives, SeesawLoss
from hdetr_d2.losses.sums import _verified
from hdetr_d2.modeling import DETR
from hdetr_d2.structures import BatchedTargets, Targets

CLASSES = 40
BATCH = ((64, 96, 4), (80, 64, 3))


class Recording(ClassificationLoss):
    """Chooses given classes and keeps what it is called with."""

    def __init__(self, chosen: Sequence[int] | None, *, needs_verified: bool = False) -> None:
        super().__init__()
        self.chosen = chosen
        self.needs_verified = needs_verified
        self.calls: list[tuple[Tensor, Positives]] = []
        self.proposals = 0

    def begin_step(self, targets: BatchedTargets) -> Tensor | None:
        self.targets = targets
        return None if self.chosen is None else torch.tensor(self.chosen)

    def of_proposals(self) -> ClassificationLoss:
        self.proposals += 1
        return FederatedLoss(image_counts=None)

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        self.calls.append((logits, positives))
        return logits.sigmoid().sum((1, 2))


@pytest.fixture
def hybrid(build_tiny: Callable[..., DETR]) -> Callable[..., DETR]:
    def build(loss: ClassificationLoss) -> DETR:
        changes = {"num_classes": CLASSES, "transformer.heads.encoder_classes": 1}
        model = build_tiny("hybrid", **changes).train()
        model.criterion.classification = loss
        return model

    return build


def test_all_layers_and_groups_compute_the_chosen_classes_with_labels_as_positions(
    hybrid: Callable[..., DETR], draw_batch: Callable[..., Any]
) -> None:
    batch, chosen = draw_batch(*BATCH), [0, 1, 2, 3, 4, 17, 39]
    runs = {}
    for kind in (None, chosen):
        loss = Recording(kind)
        model = hybrid(loss)
        model(batch)
        assert len(loss.calls) == 2
        assert loss.proposals == 1
        runs[kind is None] = loss.calls
    columns = torch.tensor(chosen)
    for (logits, positives), (some, of_some) in zip(runs[True], runs[False]):
        torch.testing.assert_close(some, logits[..., columns])
        assert positives.classes is None
        assert torch.equal(of_some.classes, columns)
        for name in ("layer", "row"):
            assert torch.equal(getattr(positives, name), getattr(of_some, name))
        assert torch.equal(columns[of_some.label], positives.label)


@pytest.mark.parametrize("inner", [None, SeesawLoss(num_classes=CLASSES), EqualizedFocalLoss(num_classes=CLASSES)])
def test_a_step_trains_every_parameter_and_only_rows_of_chosen_classes(
    hybrid: Callable[..., DETR], draw_batch: Callable[..., Any], inner: ClassificationLoss | None
) -> None:
    loss = FederatedLoss(image_counts=[1] * CLASSES, loss=inner, num_chosen=12)
    model = hybrid(loss)
    torch.manual_seed(3)
    chosen = loss.begin_step(model.targets(draw_batch(*BATCH)))
    torch.manual_seed(3)
    losses = model(draw_batch(*BATCH))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    for head in model.transformer.heads.class_embed:
        rows = head.weight.grad.abs().sum(1).nonzero()[:, 0]
        assert torch.equal(rows, chosen)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_what_is_kept_for_backward_shrinks_with_the_chosen_classes(
    hybrid: Callable[..., DETR], draw_batch: Callable[..., Any]
) -> None:
    kept: dict[int, int] = {}
    for chosen in (CLASSES, 8):
        sizes: list[int] = []
        model = hybrid(FederatedLoss(image_counts=[1] * CLASSES, num_chosen=chosen))
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            model(draw_batch(*BATCH))
        kept[chosen] = sum(sizes)
    layers, queries, images = 3, 10 + 20, 2
    # The logits themselves are kept once, for the loss.
    assert kept[CLASSES] - kept[8] >= layers * queries * images * (CLASSES - 8)


def test_the_lists_of_an_image_reach_the_loss(hybrid: Callable[..., DETR], draw_batch: Callable[..., Any]) -> None:
    batch = draw_batch(*BATCH)
    batch[1].update(neg_category_ids=[7, 30], not_exhaustive_category_ids=[int(batch[1]["instances"].gt_classes[0])])
    loss = Recording(None, needs_verified=True)
    hybrid(loss)(batch)
    first, second = loss.targets
    assert first.negatives is None
    assert second.negatives.tolist() == [7, 30]
    for logits, positives in loss.calls:
        verified = positives.verified
        assert verified.shape == logits.shape[1:]
        queries = len(verified) // 2
        assert verified[:queries].all()  # searched for everything, as in COCO
        labels = set(batch[1]["instances"].gt_classes.tolist())
        expected = ({7, 30} | labels) - set(batch[1]["not_exhaustive_category_ids"])
        assert (verified[queries:] == verified[queries]).all()
        assert set(verified[queries].nonzero()[:, 0].tolist()) == expected


def test_verified_classes_are_found_among_the_chosen_ones() -> None:
    columns = torch.tensor([2, 5, 8, 9])
    boxes = torch.rand(1, 4)
    empty = torch.empty(0, dtype=torch.int64)
    targets = [
        Targets(torch.tensor([1]), boxes, torch.tensor([0, 9]), empty),
        Targets(torch.tensor([3]), boxes, torch.tensor([2, 8]), torch.tensor([9, 2])),
        Targets(torch.tensor([0]), boxes),
    ]
    assert _verified(BatchedTargets.of(targets), 4, columns).tolist() == [
        [False, True, False, True],
        [False, False, True, False],
        [True, True, True, True],
    ]

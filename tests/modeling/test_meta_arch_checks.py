"""What the meta-architecture refuses when it is built, and targets as it makes them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L

from hdetr_d2.errors import UserError
from hdetr_d2.losses import EqualizedFocalLoss, FederatedLoss, SeesawLoss
from hdetr_d2.modeling import DETR
from hdetr_d2.structures import BatchedTargets
from hdetr_d2.supervision import HybridEpoch, HybridLayer


def with_loss(loss: Any) -> dict[str, Any]:
    """Changes that put a class loss in place of that of the config."""
    return {"criterion.classification": None, "criterion": {"classification": loss}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": "tanh"}, "DETR: score must be one of sigmoid, softmax, got 'tanh'"),
        ({"num_detections": 0}, "DETR: num_detections must be at least 1, got 0"),
        ({"supervision": L(HybridEpoch)(k=11)}, "HybridEpoch: k=11 .* num_queries=10 of group 'one2one'"),
        ({"supervision": L(HybridLayer)(k=2, num_one2many_layers=3)}, "num_one2many_layers=3 leaves none of the 3"),
        (
            with_loss(L(FederatedLoss)(image_counts=[1, 2, 3])),
            "FederatedLoss: image_counts are of 3 classes, the model has 5",
        ),
        (with_loss(L(SeesawLoss)(num_classes=4)), "SeesawLoss: is of 4 classes, the model has 5"),
        (
            with_loss(L(FederatedLoss)(image_counts=None, loss=L(EqualizedFocalLoss)(num_classes=6))),
            "EqualizedFocalLoss: is of 6 classes, the model has 5",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused_when_it_is_built(
    build_tiny: Callable[..., DETR], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_tiny("base", **changes)


def test_the_targets_of_a_batch_are_counted_once(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build_tiny("hybrid").train(), draw_batch((64, 96, 2), (64, 64, 0), (64, 64, 3))
    targets = model.targets(batch)
    assert isinstance(targets, BatchedTargets)
    assert targets.counts == (2, 0, 3) and targets.offsets == (0, 2, 2)
    labels = torch.cat([image["instances"].gt_classes for image in batch])
    assert torch.equal(targets.labels, labels)
    made: list[BatchedTargets] = []
    original = BatchedTargets.of

    def counting(given: Any) -> BatchedTargets:
        batched = original(given)
        if batched is not given:
            made.append(batched)
        return batched

    monkeypatch.setattr(BatchedTargets, "of", counting)
    model(batch)
    assert len(made) == 1

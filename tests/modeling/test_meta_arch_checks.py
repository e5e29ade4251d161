"""What the meta-architecture refuses when it is built, its targets, and detections of the asked size."""

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
    assert targets.counts == (2, 0, 3)
    assert targets.offsets == (0, 2, 2)
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
    assert not made  # what `targets` has counted is all that is read


def test_detections_come_at_the_size_that_the_data_set_asks_for(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any]
) -> None:
    model, batch = build_tiny("hybrid").eval(), draw_batch((128, 128, 0))
    (small,) = model(batch)
    (large,) = model([{**batch[0], "height": 256, "width": 512}])
    (default,) = model([{"image": batch[0]["image"]}])
    assert large["instances"].image_size == (256, 512)
    scale = torch.tensor([4.0, 2.0, 4.0, 2.0])
    torch.testing.assert_close(large["instances"].pred_boxes.tensor, small["instances"].pred_boxes.tensor * scale)
    assert torch.equal(default["instances"].pred_boxes.tensor, small["instances"].pred_boxes.tensor)


def test_images_are_normalised_and_then_padded_with_zeros(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("base")
    images = [torch.full((3, 32, 64), 200, dtype=torch.uint8), torch.zeros(3, 64, 32, dtype=torch.uint8)]
    padded = model.preprocess([{"image": image} for image in images])
    assert padded.tensor.shape == (2, 3, 64, 64)
    assert padded.image_sizes == [(32, 64), (64, 32)]
    red = (200 - 123.675) / 58.395
    torch.testing.assert_close(padded.tensor[0, 0, :32], torch.full((32, 64), red))
    assert not padded.tensor[0, :, 32:].any()
    assert not padded.tensor[1, :, :, 32:].any()


def choose_few_classes(model: DETR) -> DETR:
    model.criterion.classification = FederatedLoss(image_counts=[1] * 40, num_chosen=8)
    return model.train()


def test_proposals_by_shared_heads_learn_the_chosen_classes_and_are_ranked_by_all(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any]
) -> None:
    shared = {"transformer.heads.shared": True, "transformer.heads.encoder": "shared"}
    model = choose_few_classes(build_tiny("plus_plus", **shared, num_classes=40, **{"criterion.binary_encoder": False}))
    seen: list[Any] = []
    model.criterion.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    losses = model(draw_batch((64, 96, 3), (64, 64, 1)))
    assert all(loss.isfinite() for loss in losses.values())
    assert "loss_ce_enc" in losses
    ((predictions, proposals, *_), kwargs) = seen[0]
    assert predictions["one2one"].logits.shape[-1] == len(kwargs["columns"]) == 8
    assert proposals["one2one"].logits.shape[-1] == 40


@pytest.mark.parametrize("variant", ["base", "hybrid"])
def test_a_step_leaves_every_attribute_of_the_model_as_it_was(
    variant: str, build_tiny: Callable[..., DETR], draw_batch: Callable[..., Any]
) -> None:
    model = choose_few_classes(build_tiny(variant, num_classes=40, **{"transformer.heads.encoder_classes": 1}))

    def attributes() -> dict[str, dict[str, Any]]:
        return {
            name: {key: value for key, value in vars(module).items() if not key.startswith("_")}
            for name, module in model.named_modules()
        }

    before = attributes()
    model(draw_batch((64, 96, 3), (64, 64, 1)))
    assert attributes() == before
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    model(draw_batch((64, 96, 3), (64, 64, 1)))
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())

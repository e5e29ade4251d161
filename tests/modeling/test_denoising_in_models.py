"""Denoising groups beside the other groups of a model: who sees whom, and batches without targets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import Tensor

from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.denoising import DenoisingQueries
from hdetr_d2.structures import Predictions

CONTRASTIVE = L(DenoisingQueries)(num_classes=5, embed_dim=32, budget=6)
GROUPS_ONLY = L(DenoisingQueries)(
    num_classes=5,
    embed_dim=32,
    num_groups=2,
    budget=None,
    contrastive=False,
    indicator=True,
    train_background=False,
    local_divisor=True,
)


def predict(model: DETR, batch: list[dict[str, Any]]) -> dict[str, Predictions]:
    """Predictions of all groups in training; the noise is the same in every call."""
    torch.manual_seed(5)
    images = model.preprocess(batch)
    features = model.neck(model.backbone(images.tensor), tuple(images.tensor.shape[-2:]), images.image_sizes)
    size = tuple(images.tensor.shape[-2:])
    with torch.no_grad():
        return model.train().transformer(features, size, images.image_sizes, model.targets(batch))[0]


def distance(a: dict[str, Predictions], b: dict[str, Predictions], group: str) -> Tensor:
    return (a[group].logits - b[group].logits).abs().max()


@pytest.mark.parametrize("denoising", [CONTRASTIVE, GROUPS_ONLY], ids=["contrastive", "groups"])
def test_denoising_and_one_to_many_queries_are_blind_to_each_other(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., list[dict[str, Any]]], denoising: Any
) -> None:
    model = build_tiny("hybrid", **{"transformer.denoising": denoising})
    batch = draw_batch((96, 128, 3), (96, 128, 1))
    before = predict(model, batch)
    assert list(before) == ["one2one", "one2many", "dn"]
    with torch.no_grad():
        model.transformer.denoising.label_embed.weight.normal_()
    after_denoising = predict(model, batch)
    assert distance(before, after_denoising, "one2one") < 1e-5
    assert distance(before, after_denoising, "one2many") < 1e-5
    assert distance(before, after_denoising, "dn") > 1e-2
    with torch.no_grad():
        model.transformer.query_source.content["one2many"].normal_()
    after_one2many = predict(model, batch)
    assert distance(after_denoising, after_one2many, "one2one") < 1e-5
    assert distance(after_denoising, after_one2many, "dn") < 1e-5
    assert distance(after_denoising, after_one2many, "one2many") > 1e-2
    with torch.no_grad():
        model.transformer.query_source.content["one2one"].normal_()
    assert distance(after_one2many, predict(model, batch), "dn") > 1e-3  # what it sees


@pytest.mark.parametrize("denoising", [CONTRASTIVE, GROUPS_ONLY], ids=["contrastive", "groups"])
def test_losses_have_the_same_keys_and_all_parameters_a_gradient_whatever_the_targets(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., list[dict[str, Any]]], denoising: Any
) -> None:
    model = build_tiny("plus_plus", **{"transformer.denoising": denoising}).train()
    keys = []
    for counts in ((2, 5), (3, 0), (0, 0)):
        model.zero_grad()
        losses = model(draw_batch(*((96, 128, count) for count in counts)))
        sum(losses.values()).backward()
        keys.append(list(losses))
        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        denoising_losses = [loss.item() for key, loss in losses.items() if key.endswith("_dn")]
        assert len(denoising_losses) == 9
        assert all(loss > 0 for loss in denoising_losses) if any(counts) else not any(denoising_losses)
    assert keys[0] == keys[1] == keys[2]


def test_inference_does_not_depend_on_denoising(
    build_tiny: Callable[..., DETR], draw_batch: Callable[..., list[dict[str, Any]]]
) -> None:
    batch = draw_batch((96, 128, 3))
    model = build_tiny("plus_plus", **{"transformer.denoising": CONTRASTIVE}).eval()
    with torch.no_grad():
        (kept,) = model(batch)
        model.transformer.denoising = None
        (dropped,) = model(batch)
    assert torch.equal(kept["instances"].scores, dropped["instances"].scores)
    assert torch.equal(kept["instances"].pred_boxes.tensor, dropped["instances"].pred_boxes.tensor)

"""Every model of the family, one-to-one and hybrid: trains on anything, detects the same whatever training adds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.modeling import DETR
from hdetr_d2.structures import Predictions
from hdetr_d2.supervision import PRIMARY
from tests.modeling.family import DENOISED, ONE_TO_MANY, ONE_TO_ONE, SCHEMES, build

MODELS = ONE_TO_ONE + ONE_TO_MANY
VARIANTS = [(name, None) for name in MODELS] + [(name, scheme) for name in ONE_TO_ONE for scheme in SCHEMES]
IDS = [name if scheme is None else f"{name}-{scheme}" for name, scheme in VARIANTS]
BATCHES: dict[str, list[tuple[int, int, int]]] = {
    "objects": [(128, 160, 3), (96, 128, 1)],
    "an empty image": [(128, 128, 2), (128, 128, 0)],
    "no object at all": [(128, 128, 0)],
    "more objects than queries": [(128, 128, 45), (64, 128, 2), (128, 96, 0)],
}
DrawBatch = Callable[..., list[dict[str, Any]]]


def step(model: DETR, batch: list[dict[str, Any]]) -> dict[str, float]:
    """Losses of a training step; every gradient is checked to be finite."""
    model.train().zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return {key: value.item() for key, value in losses.items()}


@pytest.mark.parametrize(("name", "scheme"), VARIANTS, ids=IDS)
def test_losses_are_finite_and_have_the_same_keys_whatever_the_targets(
    name: str, scheme: str | None, draw_batch: DrawBatch
) -> None:
    model = build(name, scheme)
    keys = None
    for progress in (0.0, 0.9):
        model.progress = progress
        for images in BATCHES.values():
            losses = step(model, draw_batch(*images))
            keys = keys or list(losses)
            assert list(losses) == keys
            assert torch.tensor(list(losses.values())).isfinite().all(), losses


@pytest.mark.parametrize(("name", "scheme"), VARIANTS, ids=IDS)
def test_every_parameter_is_trained_in_every_step(name: str, scheme: str | None, draw_batch: DrawBatch) -> None:
    # What gets no gradient would hang distributed training; zero is enough.
    model = build(name, scheme)
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    for images in ("objects", "no object at all"):
        step(model, draw_batch(*BATCHES[images]))
        missing = {key for key, p in model.named_parameters() if p.grad is None} - frozen
        # Refinement by the last layer's raw output, and what ranks proposals, is not asked for by any loss.
        assert not missing, (images, sorted(missing))


@pytest.mark.parametrize("name", MODELS)
def test_extreme_boxes_and_few_tokens(name: str, draw_batch: DrawBatch) -> None:
    model = build(name)
    batch = draw_batch((128, 128, 2), (64, 64, 2))
    for x in batch:
        height, width = x["instances"].image_size
        x["instances"].gt_boxes.tensor[:] = torch.tensor(
            [[0.0, 0, width, height], [width - 1, height - 1, width, height]]
        )
    assert torch.tensor(list(step(model, batch).values())).isfinite().all()
    # 32 x 32 pixels are 21 tokens on four levels, fewer than the queries of some groups; BatchNorm needs two images.
    small = draw_batch((32, 32, 2), (32, 32, 1))
    assert torch.tensor(list(step(model, small).values())).isfinite().all()
    with torch.no_grad():
        result, _ = model.eval()(small)
    assert len(result["instances"]) == 10


def stripped(model: DETR) -> DETR:
    """The model as inference needs it: nothing that training adds."""
    model.transformer.denoising = None if not keeps_content(model) else model.transformer.denoising
    model.transformer.query_source.specs = model.transformer.query_source.specs[:1]
    return model


def keeps_content(model: DETR) -> bool:
    """Whether the denoising part gives the content of matching queries (DN-DETR)."""
    denoising = model.transformer.denoising
    return denoising is not None and denoising.unknown_content


def assert_same(a: Predictions, b: Predictions) -> None:
    torch.testing.assert_close(a.logits, b.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a.boxes, b.boxes, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "scheme"), VARIANTS, ids=IDS)
def test_groups_of_training_change_no_prediction_of_the_primary_group(
    name: str, scheme: str | None, draw_batch: DrawBatch
) -> None:
    model = build(name, scheme).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    batch = draw_batch((128, 128, 3), (128, 128, 1))
    images = model.preprocess(batch)
    arguments = model.backbone(images.tensor), (128, 128), images.image_sizes

    def primary(with_groups: bool) -> Predictions:
        predictions, _ = model.predict(*arguments, model.targets(batch) if with_groups else None)
        return predictions[PRIMARY]

    with torch.no_grad():
        everything, without_noise = primary(True), primary(False)
        stripped(model)
        alone = primary(False)
        last = model.eval().predict(*arguments)[0][PRIMARY]
    assert_same(everything, without_noise)
    assert_same(everything, alone)
    if not model.fuse_layers:
        assert_same(Predictions(everything.logits[-1:], everything.boxes[-1:]), last)


@pytest.mark.parametrize("name", sorted(set(DENOISED) & set(ONE_TO_ONE)))
def test_denoising_and_one_to_many_queries_are_blind_to_each_other(name: str, draw_batch: DrawBatch) -> None:
    model = build(name, "branch").train()
    batch = draw_batch((128, 128, 3))
    images = model.preprocess(batch)
    maps = model.neck(model.backbone(images.tensor), (128, 128), images.image_sizes)
    groups: dict[str, Any] = {}
    decode = model.transformer.decoder.forward

    def spy(given: list[Any], *args: Any, **options: Any) -> dict[str, Predictions]:
        groups.update({group.name: group for group in given})
        return decode(given, *args, **options)

    model.transformer.decoder.forward = spy
    model.transformer(maps, (128, 128), images.image_sizes, model.targets(batch))
    assert groups["dn"].sees == (PRIMARY,)
    assert groups[PRIMARY].sees == groups["one2many"].sees == ()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_saved_and_loaded_with_equal_detections(name: str, draw_batch: DrawBatch) -> None:
    model, other = build(name).eval(), build(name, seed=1).eval()
    batch = draw_batch((128, 160, 1))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        (expected,), (result,) = model(batch), other(batch)
    assert torch.equal(expected["instances"].scores, result["instances"].scores)
    assert torch.equal(expected["instances"].pred_boxes.tensor, result["instances"].pred_boxes.tensor)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_autocast_gives_finite_losses_in_single_precision(name: str, draw_batch: DrawBatch) -> None:
    model = build(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses: dict[str, Tensor] = model(draw_batch(*BATCHES["objects"]))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

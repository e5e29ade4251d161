"""Training steps of every variant: gradients, empty images, small images, memory saving, precision, dropout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.modeling import DETR
from hdetr_d2.registry import SUPERVISION_REGISTRY
from hdetr_d2.supervision import PRIMARY

ALL = ["base", "refine", "two_stage", "plus_plus", "hybrid"]
REFINED = ["refine", "two_stage", "plus_plus", "hybrid"]


def step(model: DETR, batch: list[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Losses of a step, and its gradients by parameter name."""
    model.zero_grad()
    losses = model.train()(batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}


def assert_complete(losses: dict[str, Tensor], gradients: dict[str, Tensor | None]) -> None:
    """Every loss is a finite scalar and every parameter has a finite gradient."""
    assert [key for key, value in losses.items() if value.dim() or not value.isfinite()] == []
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []


@pytest.mark.parametrize("variant", ALL)
def test_every_parameter_of_every_variant_learns(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str
) -> None:
    losses, gradients = step(build_tiny(variant), draw_batch((128, 192, 4), (128, 128, 2)))
    assert_complete(losses, gradients)
    idle = {name for name, gradient in gradients.items() if not gradient.any()}
    # Without mixed selection a proposal's content is made of its box; with it, half of the layer is of no use.
    assert {name for name in idle if "pos_trans" not in name} == set()


@pytest.mark.parametrize(("variant", "groups"), [(v, 2 if v == "hybrid" else 1) for v in ALL])
def test_loss_keys_are_those_of_the_authors(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str, groups: int
) -> None:
    suffixes = ["_0", "_1", ""] + ["_0_one2many", "_1_one2many", "_one2many"] * (groups - 1)
    if variant not in ("base", "refine"):
        suffixes.append("_enc")
    losses = build_tiny(variant)(draw_batch((128, 128, 2)))
    assert set(losses) == {f"loss_{kind}{suffix}" for kind in ("ce", "bbox", "giou") for suffix in suffixes}


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("objects", [(0, 3), (0, 0)])
def test_empty_images_give_the_same_keys_and_every_parameter_a_gradient(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str, objects: tuple[int, int]
) -> None:
    model = build_tiny(variant)
    expected, _ = step(model, draw_batch((128, 192, 4), (128, 128, 2)))
    losses, gradients = step(model, draw_batch((128, 192, objects[0]), (128, 128, objects[1])))
    assert list(losses) == list(expected)
    assert_complete(losses, gradients)
    if objects == (0, 0):
        assert all(value.item() == 0 for key, value in losses.items() if "loss_ce" not in key)
        assert all(value.item() > 0 for key, value in losses.items() if "loss_ce" in key)


@pytest.mark.parametrize("variant", ["two_stage", "plus_plus", "hybrid"])
def test_an_image_with_fewer_tokens_than_queries_is_trained_on_and_evaluated(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str
) -> None:
    model = build_tiny(variant, **{"transformer.query_source.num_queries": 40})
    batch = draw_batch((32, 32, 2), (32, 32, 0))  # 16 + 4 + 1 + 1 tokens
    expected, _ = step(model, draw_batch((128, 128, 2)))
    losses, gradients = step(model, batch)
    assert list(losses) == list(expected)
    assert_complete(losses, gradients)
    (first, _) = model.eval()(batch)
    assert len(first["instances"]) == 100
    assert first["instances"].scores.isfinite().all()


@pytest.mark.parametrize(("queries", "sizes"), [(10, (10, 12)), (22, (22, 0)), (40, (22, 0)), (5, (5, 17))])
def test_groups_shrink_from_the_last_one_on(
    build_tiny: Callable[..., DETR], queries: int, sizes: tuple[int, int]
) -> None:
    model = build_tiny("hybrid", **{"transformer.query_source.num_queries": queries}).train()
    maps = [torch.randn(1, 32, s, s) for s in (4, 2, 1, 1)]
    groups, _ = model.transformer(maps, (32, 32), [(32, 32)])
    assert tuple(groups[name].logits.shape[2] for name in (PRIMARY, "one2many")) == sizes


@pytest.mark.parametrize(("forward_twice", "variant"), [(True, "hybrid"), (False, "two_stage"), (False, "refine")])
def test_a_layers_box_loss_trains_the_box_head_before_it_only_when_looking_forward_twice(
    build_tiny: Callable[..., DETR], draw_batch: Any, forward_twice: bool, variant: str
) -> None:
    model = build_tiny(variant).train()
    losses = model(draw_batch((128, 128, 4)))
    heads = model.transformer.heads.bbox_embed
    last = losses["loss_bbox"] + losses["loss_giou"]
    reached = []
    for head in heads:
        gradients = torch.autograd.grad(last, list(head.parameters()), retain_graph=True, allow_unused=True)
        reached.append(any(gradient is not None and bool(gradient.any()) for gradient in gradients))
    assert reached == [False, forward_twice, True]  # exactly one layer back


def test_looking_forward_twice_changes_gradients_and_not_losses(
    build_tiny: Callable[..., DETR], draw_batch: Any
) -> None:
    batch = draw_batch((128, 128, 4))
    key = "transformer.decoder.look_forward_twice"
    (once, gradients_once), (twice, gradients_twice) = (
        step(build_tiny("hybrid", **{key: value}), batch) for value in (False, True)
    )
    assert {k: v.item() for k, v in once.items()} == pytest.approx({k: v.item() for k, v in twice.items()}, rel=1e-5)
    name = "transformer.heads.bbox_embed.1.layers.2.weight"
    assert not torch.allclose(gradients_once[name], gradients_twice[name], rtol=1e-2)


def test_looking_forward_twice_without_refinement_is_refused(build_tiny: Callable[..., DETR]) -> None:
    with pytest.raises(ValueError, match="look_forward_twice=True needs refine=True"):
        build_tiny("base", **{"transformer.decoder.look_forward_twice": True})


@pytest.mark.parametrize("variant", ["base", "hybrid"])
def test_references_carry_no_gradient_from_layer_to_layer(build_tiny: Callable[..., DETR], variant: str) -> None:
    # The class loss of the last layer must not reach any box head: references are detached.
    model = build_tiny(variant).train()
    maps = [torch.randn(1, 32, s, s) for s in (16, 8, 4, 2)]
    groups, _ = model.transformer(maps, (128, 128), [(128, 128)])
    parameters = list(model.transformer.heads.bbox_embed.parameters())
    gradients = torch.autograd.grad(groups[PRIMARY].logits[-1].sum(), parameters, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("variant", ["base", "hybrid"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_activations_changes_neither_losses_nor_gradients(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str, dropout: float
) -> None:
    batch = draw_batch((128, 192, 3), (128, 128, 2))
    results = []
    for recompute in (False, True):
        changes = {
            "transformer.encoder.checkpoint_activations": recompute,
            "transformer.encoder.layer.dropout": dropout,
        }
        model = build_tiny(variant, **changes)
        assert model.transformer.decoder.checkpoint_activations == recompute
        torch.manual_seed(7)  # the same dropout
        results.append(step(model, batch))
    (losses, gradients), (losses_recomputed, gradients_recomputed) = results
    assert {k: v.item() for k, v in losses.items()} == {k: v.item() for k, v in losses_recomputed.items()}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_recomputed[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def elements_kept(run: Callable[[], Any]) -> int:
    """How many numbers autograd saves for backward while ``run`` runs."""
    sizes: list[int] = []

    def keep(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        run()
    return sum(sizes)


def test_activations_that_are_recomputed_are_not_kept(build_tiny: Callable[..., DETR], draw_batch: Any) -> None:
    batch = draw_batch((128, 192, 3))
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        model = build_tiny("hybrid", **{"transformer.encoder.checkpoint_activations": recompute}).train()
        kept[recompute] = elements_kept(lambda model=model: model(batch))
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize("variant", ALL)
def test_dropout_acts_in_training_only(build_tiny: Callable[..., DETR], draw_batch: Any, variant: str) -> None:
    model, batch = build_tiny(variant, **{"transformer.encoder.layer.dropout": 0.3}), draw_batch((128, 128, 3))
    first, gradients = step(model, batch)
    second, _ = step(model, batch)
    assert_complete(first, gradients)
    assert first["loss_ce"].item() != second["loss_ce"].item()
    model.eval()
    assert torch.equal(*(model(batch)[0]["instances"].scores for _ in range(2)))


@pytest.mark.parametrize("variant", ALL)
def test_bf16_autocast_trains_and_detects_close_to_float32(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str
) -> None:
    model, batch = build_tiny(variant), draw_batch((128, 192, 3), (128, 128, 0))
    exact = sum(value.item() for value in model.train()(batch).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, gradients = step(model, batch)
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert_complete(losses, gradients)
    assert sum(value.item() for value in losses.values()) == pytest.approx(exact, rel=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for output in model.eval()(batch):
            assert output["instances"].scores.isfinite().all()
            assert output["instances"].pred_boxes.tensor.isfinite().all()


@pytest.mark.parametrize("scheme", ["HybridEpoch", "HybridLayer"])
def test_schemes_on_one_set_of_queries_train_the_same_model(
    build_tiny: Callable[..., DETR], draw_batch: Any, scheme: str
) -> None:
    model, batch = build_tiny("plus_plus"), draw_batch((128, 128, 3))
    plain, _ = step(model, batch)
    options = {"HybridEpoch": {"k": 3}, "HybridLayer": {"k": 3, "num_one2many_layers": 2}}[scheme]
    model.supervision = SUPERVISION_REGISTRY.get(scheme)(**options)
    losses, gradients = step(model, batch)
    assert list(losses) == list(plain)
    assert_complete(losses, gradients)
    assert losses["loss_bbox_0"].item() != plain["loss_bbox_0"].item()
    model.progress = 0.9
    late, _ = step(model, batch)
    assert late["loss_bbox"].item() == plain["loss_bbox"].item()
    assert (late["loss_bbox_0"].item() == plain["loss_bbox_0"].item()) == (scheme == "HybridEpoch")


@pytest.mark.parametrize("label", [5, -1])
def test_a_class_that_the_model_does_not_have_is_refused_naming_the_image(
    build_tiny: Callable[..., DETR], draw_batch: Any, label: int
) -> None:
    model, batch = build_tiny("hybrid"), draw_batch((128, 128, 2), (128, 128, 3))
    batch[1]["instances"].gt_classes[0] = label
    with pytest.raises(ValueError, match=rf"drawn_1\.png.*class {label} .*5 classes"):
        model(batch)


def test_targets_are_relative_to_the_image_and_not_to_the_padded_batch(
    build_tiny: Callable[..., DETR], draw_batch: Any
) -> None:
    model, batch = build_tiny("base"), draw_batch((128, 192, 2), (64, 128, 1))
    targets = model.targets(batch)
    for image, target in zip(batch, targets):
        height, width = image["image"].shape[1:]
        for box, normalised in zip(image["instances"].gt_boxes.tensor.tolist(), target.boxes.tolist()):
            x0, y0, x1, y1 = box
            expected = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
            assert normalised == pytest.approx(expected, abs=1e-6)
        assert torch.equal(target.labels, image["instances"].gt_classes)


OPTIONS = {
    "five levels": {"transformer.num_levels": 5},
    "proposals of one channel": {"transformer.heads.encoder_classes": 1},
    "proposals that learn classes": {"criterion.binary_encoder": False},
    "two stages without refinement": {
        "transformer.decoder.refine": False,
        "transformer.decoder.look_forward_twice": False,
        "transformer.heads.shared": True,
        "transformer.heads.encoder": "shared",
    },
    "content from the boxes": {"transformer.query_source.mixed": False},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_trains_and_detects_with_the_usual_losses(
    build_tiny: Callable[..., DETR], draw_batch: Any, option: str
) -> None:
    batch = draw_batch((128, 192, 4), (128, 128, 2))
    usual, _ = step(build_tiny("hybrid"), batch)
    model = build_tiny("hybrid", **OPTIONS[option])
    losses, gradients = step(model, batch)
    assert list(losses) == list(usual)
    assert_complete(losses, gradients)
    for output in model.eval()(batch):
        assert len(output["instances"]) == 10 * 5
        assert output["instances"].scores.isfinite().all()


def test_a_narrow_proposal_head_proposes_what_channel_zero_of_the_wide_one_does(
    build_tiny: Callable[..., DETR],
) -> None:
    wide = build_tiny("hybrid")
    narrow = build_tiny("hybrid", **{"transformer.heads.encoder_classes": 1})
    state = wide.state_dict()
    for part in ("weight", "bias"):
        key = f"transformer.heads.encoder_class_embed.{part}"
        state[key] = state[key][:1]
    narrow.load_state_dict(state)
    maps = [torch.randn(1, 32, s, s) for s in (16, 8, 4, 2)]
    for training in (True, False):
        a, b = (m.train(training).transformer(maps, (128, 128), [(128, 128)])[0] for m in (wide, narrow))
        assert a.keys() == b.keys()
        for group in a:
            torch.testing.assert_close(a[group].logits, b[group].logits, atol=1e-5, rtol=1e-5)

"""What must not change a model's outputs: train-only groups, the batch around an image, its padding."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.modeling import DETR
from hdetr_d2.structures import Predictions
from hdetr_d2.supervision import PRIMARY
from tests.rankings import mute_invalid_proposals

ALL = ["base", "refine", "two_stage", "plus_plus", "hybrid"]


def assert_same(a: Predictions, b: Predictions, **tolerance: float) -> None:
    torch.testing.assert_close(a.logits, b.logits, **tolerance)
    torch.testing.assert_close(a.boxes, b.boxes, **tolerance)


def draw_maps(model: DETR, padded_size: tuple[int, int], images: int) -> list[Tensor]:
    """Maps of strides 8 to 64, as the neck gives them."""
    width = model.transformer.level_embed.shape[1]
    return [torch.randn(images, width, padded_size[0] // s, padded_size[1] // s) for s in (8, 16, 32, 64)]


def with_the_same_weights(model: DETR, other: DETR) -> DETR:
    own = other.state_dict()
    other.load_state_dict({key: value for key, value in model.state_dict().items() if key in own}, strict=False)
    return other


@pytest.mark.parametrize("training", [True, False])
def test_one_to_one_outputs_are_equal_with_and_without_the_one_to_many_group(
    build_tiny: Callable[..., DETR], training: bool
) -> None:
    hybrid = build_tiny("hybrid")
    alone = with_the_same_weights(hybrid, build_tiny("plus_plus", seed=1))
    maps, sizes = draw_maps(hybrid, (128, 192), 2), [(128, 192), (128, 128)]
    results = [model.train(training).transformer(maps, (128, 192), sizes) for model in (hybrid, alone)]
    (groups, proposals), (groups_alone, proposals_alone) = results
    assert_same(groups[PRIMARY], groups_alone[PRIMARY], atol=1e-5, rtol=1e-5)
    if training:
        assert list(groups) == [PRIMARY, "one2many"]
        assert_same(proposals[PRIMARY], proposals_alone[PRIMARY])
    else:
        assert list(groups) == list(groups_alone) == [PRIMARY]


def test_one_to_one_losses_are_equal_with_and_without_the_one_to_many_group(
    build_tiny: Callable[..., DETR], draw_batch: Any
) -> None:
    hybrid = build_tiny("hybrid")
    alone = with_the_same_weights(hybrid, build_tiny("plus_plus", seed=1))
    batch = draw_batch((128, 128, 3), (64, 128, 1))
    losses, expected = hybrid(batch), alone(batch)
    assert set(losses) - set(expected) == {key for key in losses if key.endswith("_one2many")}
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("variant", ALL)
def test_evaluation_gives_what_the_last_layer_gives_in_training(build_tiny: Callable[..., DETR], variant: str) -> None:
    model = build_tiny(variant)
    maps, sizes = draw_maps(model, (128, 192), 2), [(128, 192), (64, 128)]
    trained = model.train().transformer(maps, (128, 192), sizes)[0][PRIMARY]
    evaluated, proposals = model.eval().transformer(maps, (128, 192), sizes)
    assert not proposals
    assert evaluated[PRIMARY].logits.shape[0] == 1
    last = Predictions(trained.logits[-1:], trained.boxes[-1:])
    assert_same(evaluated[PRIMARY], last, atol=1e-5, rtol=1e-5)


def test_evaluation_changes_nothing_that_training_then_sees(build_tiny: Callable[..., DETR], draw_batch: Any) -> None:
    model, batch = build_tiny("hybrid"), draw_batch((128, 128, 3))
    before = {key: value.item() for key, value in model.train()(batch).items()}
    model.eval()(batch)
    after = {key: value.item() for key, value in model.train()(batch).items()}
    assert before == after


def test_the_primary_groups_references_are_the_prefix_of_a_longer_ranking(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("hybrid").eval()
    transformer = model.transformer
    maps = draw_maps(model, (128, 192), 2)
    memory = transformer.flatten(maps, (128, 192), [(128, 192), (128, 128)])
    long, _ = transformer.query_source(memory, transformer.heads, training=True)
    short, _ = transformer.query_source(memory, transformer.heads, training=False)
    assert [group.content.shape[1] for group in long] == [10, 20]
    assert [group.content.shape[1] for group in short] == [10]
    for name in ("content", "reference", "position"):
        torch.testing.assert_close(getattr(long[0], name), getattr(short[0], name))


def test_queries_start_at_the_proposals_that_score_highest_in_channel_zero(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("hybrid").train()
    transformer = model.transformer
    memory = transformer.flatten(draw_maps(model, (128, 192), 2), (128, 192), [(128, 192), (128, 192)])
    groups, proposals = transformer.query_source(memory, transformer.heads, training=True)
    proposals = proposals[PRIMARY]
    order = proposals.logits[0, :, :, 0].argsort(dim=1, descending=True)
    references = torch.cat([group.reference for group in groups], dim=1)
    for image in range(2):
        torch.testing.assert_close(references[image], proposals.boxes[0, image, order[image, :30]])


def mute(model: DETR) -> None:
    """Places without a proposal rank last."""
    source = model.transformer.query_source
    if hasattr(source, "enc_output"):
        class_head, _ = model.transformer.heads.of_encoder()
        mute_invalid_proposals(lambda tokens: source.enc_output_norm(source.enc_output(tokens)), class_head)


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_an_image_gives_the_same_alone_and_in_a_padded_batch(
    build_tiny: Callable[..., DETR], variant: str, training: bool
) -> None:
    model = build_tiny(variant, **{"transformer.query_source.num_queries": 8}).train(training)
    mute(model)
    sizes = [(128, 192), (256, 128), (128, 128)]
    batch = draw_maps(model, (256, 192), 3)  # what stands on padding is drawn too, and must not matter
    together, _ = model.transformer(batch, (256, 192), sizes)
    for index, (height, width) in enumerate(sizes):
        maps = [m[index : index + 1, :, : height // s, : width // s] for m, s in zip(batch, (8, 16, 32, 64))]
        alone, _ = model.transformer(maps, (height, width), [(height, width)])
        ours = together[PRIMARY]
        cut = Predictions(ours.logits[:, index : index + 1], ours.boxes[:, index : index + 1])
        assert_same(cut, alone[PRIMARY], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ALL)
def test_detections_of_equally_large_images_do_not_depend_on_their_batch(
    build_tiny: Callable[..., DETR], draw_batch: Any, variant: str
) -> None:
    model = build_tiny(variant).eval()
    batch = draw_batch((128, 128, 0), (128, 128, 0), (128, 128, 0))
    together = [output["instances"] for output in model(batch)]
    for image, instances in zip(batch, together):
        (alone,) = (output["instances"] for output in model([image]))
        torch.testing.assert_close(alone.scores, instances.scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.pred_boxes.tensor, instances.pred_boxes.tensor, atol=1e-3, rtol=1e-4)


def test_order_of_the_images_is_the_order_of_the_results(build_tiny: Callable[..., DETR], draw_batch: Any) -> None:
    model = build_tiny("hybrid").eval()
    batch = draw_batch((128, 128, 0), (128, 192, 0))
    forward, backward = model(batch), model(batch[::-1])
    for a, b in zip(forward, backward[::-1]):
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ALL)
def test_single_precision_is_close_to_double(build_tiny: Callable[..., DETR], variant: str) -> None:
    # One layer of each: chosen proposals and refined references are not continuous in the precision.
    changes = {"transformer.encoder.num_layers": 1, "transformer.decoder.num_layers": 1}
    model = build_tiny(variant, **changes).train()
    maps, sizes = draw_maps(model, (128, 192), 2), [(128, 192), (64, 128)]
    single, _ = model.transformer(maps, (128, 192), sizes)
    double, _ = model.double().transformer([m.double() for m in maps], (128, 192), sizes)
    assert double[PRIMARY].logits.dtype == torch.float64
    torch.testing.assert_close(single[PRIMARY].logits.double(), double[PRIMARY].logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(single[PRIMARY].boxes.double(), double[PRIMARY].boxes.double(), atol=1e-4, rtol=1e-4)


def test_padding_is_none_for_a_batch_without_any_and_exact_for_others(build_tiny: Callable[..., DETR]) -> None:
    model = build_tiny("base")
    maps = draw_maps(model, (128, 192), 2)
    full = model.transformer.flatten(maps, (128, 192), [(128, 192), (128, 192)])
    assert full.padding is None
    assert torch.equal(full.valid_ratios, torch.ones(2, 4, 2))
    part = model.transformer.flatten(maps, (128, 192), [(128, 192), (64, 96)])
    assert part.spatial_shapes.tolist() == [[16, 24], [8, 12], [4, 6], [2, 3]]
    start = 0
    for level, (height, width) in enumerate(part.spatial_shapes.tolist()):
        padding = part.padding[1, start : start + height * width].view(height, width)
        start += height * width
        valid_height, valid_width = height // 2, math.ceil(width / 2)
        expected = torch.ones(height, width, dtype=torch.bool)
        expected[:valid_height, :valid_width] = False
        assert torch.equal(padding, expected)
        torch.testing.assert_close(part.valid_ratios[1, level], torch.tensor([valid_width / width, 0.5]))
    assert not part.padding[0].any()

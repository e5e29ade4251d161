"""Neck, heads, proposals, post-processing and backbones one by one."""

import math

import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.modeling import ChannelMapper, PredictionHeads, TimmBackbone, to_instances, top_detections
from hdetr_d2.modeling.encoder import cell_centres
from hdetr_d2.modeling.queries.two_stage import proposal_boxes
from hdetr_d2.structures import Memory

SMALL_SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "model_args": {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
}


def memory_of(shapes: list[tuple[int, int]], valid: list[tuple[int, int]] | None = None) -> Memory:
    """One image; ``valid`` are the rows and columns of each level that are not padding."""
    valid = valid or shapes
    paddings, ratios = [], []
    for (height, width), (rows, columns) in zip(shapes, valid):
        padding = torch.ones(height, width, dtype=torch.bool)
        padding[:rows, :columns] = False
        paddings.append(padding.flatten())
        ratios.append([columns / width, rows / height])
    padding = torch.cat(paddings)[None]
    tokens = torch.randn(1, padding.shape[1], 8)
    return Memory(
        tokens=tokens,
        positions=torch.randn_like(tokens),
        padding=padding if valid != shapes else None,
        level_sizes=tuple(shapes),
        valid_ratios=torch.tensor([ratios]),
    )


@pytest.mark.parametrize("num_levels", [3, 4, 5])
def test_further_levels_of_the_neck_halve_the_one_before(num_levels: int) -> None:
    neck = ChannelMapper(
        in_channels=[4, 6, 8], in_features=["a", "b", "c"], out_channels=16, num_levels=num_levels, num_groups=4
    )
    features = {name: torch.randn(2, c, s, 2 * s) for name, c, s in (("a", 4, 16), ("b", 6, 8), ("c", 8, 4))}
    maps = neck(features)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 16 >> i, 32 >> i) for i in range(num_levels)]
    if num_levels > 3:  # from the backbone's last feature as it is
        assert torch.equal(neck.levels[3](features["c"]), maps[3])
    if num_levels > 4:  # from the level before
        assert torch.equal(neck.levels[4](maps[3]), maps[4])


def test_levels_of_the_neck_are_normalised_by_group() -> None:
    neck = ChannelMapper(in_channels=[4], in_features=["a"], out_channels=64, num_levels=2)
    for m in neck({"a": 5 + 3 * torch.randn(1, 4, 8, 8)}):
        grouped = m.detach().view(32, -1)
        torch.testing.assert_close(grouped.mean(1), torch.zeros(32), atol=1e-4, rtol=0)
        torch.testing.assert_close(grouped.std(1, unbiased=False), torch.ones(32), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("norm", "kinds"), [("BN", [nn.Conv2d, nn.BatchNorm2d]), (None, [nn.Conv2d])])
def test_a_neck_has_the_norm_that_is_named(norm: str | None, kinds: list[type]) -> None:
    neck = ChannelMapper(in_channels=[6], in_features=["c"], out_channels=8, num_levels=2, norm=norm)
    for level in neck.levels:
        assert [type(part) for part in level] == kinds
        assert (level[0].bias is None) is (norm == "BN")
    assert [tuple(m.shape) for m in neck({"c": torch.randn(2, 6, 4, 4)})] == [(2, 8, 4, 4), (2, 8, 2, 2)]


def test_a_neck_whose_settings_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="norm.*'LN'"):
        ChannelMapper(in_channels=[4], in_features=["a"], norm="LN")
    with pytest.raises(ValueError, match="do not fit"):
        ChannelMapper(in_channels=[4, 6], in_features=["a"])
    with pytest.raises(ValueError, match="do not fit"):
        ChannelMapper(in_channels=[4, 6], in_features=["a", "b"], num_levels=1)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"shared": True, "encoder": None, "initial_size": True}, [-2.0] * 3),
        ({"shared": False, "encoder": None, "initial_size": True}, [-2.0, 0.0, 0.0]),
        ({"shared": False, "encoder": "own", "initial_size": False}, [0.0] * 3),
        ({"shared": True, "encoder": "shared", "initial_size": False}, [0.0] * 3),
    ],
)
def test_heads_start_with_rare_classes_and_boxes_at_their_reference(options: dict, sizes: list[float]) -> None:
    heads = PredictionHeads(embed_dim=16, num_classes=5, num_layers=3, **options)
    x = torch.randn(4, 16)
    for layer, size in enumerate(sizes):
        class_head, box_head = heads.of_layer(layer)
        torch.testing.assert_close(class_head.bias.sigmoid(), torch.full((5,), 0.01))
        assert torch.equal(box_head(x), torch.tensor([0.0, 0.0, size, size]).expand(4, 4))
        assert torch.equal(class_head(x), heads.of_layer(0)[0](x))  # copies
    assert len({id(heads.of_layer(layer)[1]) for layer in range(3)}) == (1 if options["shared"] else 3)
    if options["encoder"]:
        class_head, box_head = heads.of_encoder()
        assert torch.equal(class_head(x), heads.of_layer(0)[0](x)) and not box_head(x).any()
        assert (class_head is heads.of_layer(0)[0]) == (options["encoder"] == "shared")


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ValueError, match='encoder="shared" needs shared=True'):
        PredictionHeads(shared=False, encoder="shared")
    with pytest.raises(ValueError, match="encoder must be"):
        PredictionHeads(encoder="other")


def test_the_narrow_proposal_head_is_one_channel_with_the_same_prior() -> None:
    class_head, _ = PredictionHeads(embed_dim=16, num_classes=5, num_layers=2, encoder_classes=1).of_encoder()
    assert class_head.weight.shape == (1, 16)
    assert class_head.bias.sigmoid().item() == pytest.approx(0.01)


def test_a_proposal_is_its_cells_centre_with_a_size_that_doubles_by_level() -> None:
    shapes, valid = [(8, 10), (4, 5)], [(6, 10), (3, 4)]
    memory = memory_of(shapes, valid)
    logits, is_valid = proposal_boxes(memory)
    centres = cell_centres(memory)
    index = 0
    for level, ((height, width), (rows, columns)) in enumerate(zip(shapes, valid)):
        for y in range(height):
            for x in range(width):
                box = [(x + 0.5) / columns, (y + 0.5) / rows, 0.05 * 2**level, 0.05 * 2**level]
                assert centres[0, index].tolist() == pytest.approx(box[:2], rel=1e-5)
                inside = y < rows and x < columns and all(0.01 < value < 0.99 for value in box)
                assert bool(is_valid[0, index]) == inside
                if inside:
                    expected = [math.log(value / (1 - value)) for value in box]
                    assert logits[0, index].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
                else:
                    assert logits[0, index].tolist() == [math.inf] * 4
                index += 1


def test_proposals_at_the_margin_are_invalid() -> None:
    _, valid = proposal_boxes(memory_of([(1, 100)]))
    # centres at 0.005, 0.015, ..., 0.985, 0.995
    assert valid[0].tolist() == [False] + [True] * 98 + [False]


def sorted_pairs(logits: Tensor, boxes: Tensor) -> list[tuple[float, int, list[float]]]:
    """All (score, class, XYXY box) of one image in plain Python, best first."""
    pairs = []
    for row, (cx, cy, w, h) in zip(logits.tolist(), boxes.tolist()):
        for label, logit in enumerate(row):
            pairs.append((1 / (1 + math.exp(-logit)), label, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
    return sorted(pairs, key=lambda pair: -pair[0])


@pytest.mark.parametrize(("wanted", "got"), [(7, 7), (24, 24), (100, 24)])
def test_detections_are_the_best_pairs_of_query_and_class(wanted: int, got: int) -> None:
    logits, boxes = torch.randn(2, 8, 3), torch.rand(2, 8, 4)
    scores, labels, corners = top_detections(logits, boxes, wanted)
    assert scores.shape == (2, got)
    for image in range(2):
        for place, (score, label, box) in enumerate(sorted_pairs(logits[image], boxes[image])[:got]):
            assert scores[image, place].item() == pytest.approx(score, rel=1e-5)
            assert labels[image, place].item() == label
            assert corners[image, place].tolist() == pytest.approx(box, abs=1e-6)


def test_instances_have_the_asked_size_and_boxes_inside_it() -> None:
    boxes = torch.tensor([[[0.25, 0.5, 0.75, 1.0], [-0.1, 0.2, 0.5, 1.3]]])
    (instances,) = to_instances(torch.tensor([[0.9, 0.1]]), torch.tensor([[3, 1]]), boxes, [(100, 200)])
    assert instances.image_size == (100, 200)
    torch.testing.assert_close(
        instances.pred_boxes.tensor, torch.tensor([[50.0, 50.0, 150.0, 100.0], [0.0, 20.0, 100.0, 100.0]])
    )
    assert instances.pred_classes.tolist() == [3, 1]
    assert instances.scores.tolist() == pytest.approx([0.9, 0.1])


def test_detections_come_at_the_size_that_the_data_set_asks_for(build_tiny, draw_batch) -> None:
    model, batch = build_tiny("hybrid").eval(), draw_batch((128, 128, 0))
    (small,) = model(batch)
    (large,) = model([{**batch[0], "height": 256, "width": 512}])
    (default,) = model([{"image": batch[0]["image"]}])
    assert large["instances"].image_size == (256, 512)
    scale = torch.tensor([4.0, 2.0, 4.0, 2.0])
    torch.testing.assert_close(large["instances"].pred_boxes.tensor, small["instances"].pred_boxes.tensor * scale)
    assert torch.equal(default["instances"].pred_boxes.tensor, small["instances"].pred_boxes.tensor)


def test_images_are_normalised_and_then_padded_with_zeros(build_tiny) -> None:
    model = build_tiny("base")
    images = [torch.full((3, 32, 64), 200, dtype=torch.uint8), torch.zeros(3, 64, 32, dtype=torch.uint8)]
    padded = model.preprocess([{"image": image} for image in images])
    assert padded.tensor.shape == (2, 3, 64, 64)
    assert padded.image_sizes == [(32, 64), (64, 32)]
    red = (200 - 123.675) / 58.395
    torch.testing.assert_close(padded.tensor[0, 0, :32], torch.full((32, 64), red))
    assert not padded.tensor[0, :, 32:].any() and not padded.tensor[1, :, :, 32:].any()


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({"name": "resnet18"}, [128, 256, 512]),
        ({"name": "convnext_atto"}, [80, 160, 320]),
        ({**SMALL_SWIN, "output_norm": True}, [24, 48, 96]),
    ],
)
def test_a_timm_model_gives_maps_of_strides_8_to_32(options: dict, channels: list[int]) -> None:
    backbone = TimmBackbone(**options)
    shape = backbone.output_shape()
    assert [shape[name].channels for name in ("res3", "res4", "res5")] == channels
    assert [shape[name].stride for name in ("res3", "res4", "res5")] == [8, 16, 32]
    features = backbone(torch.randn(1, 3, 96, 160))  # which windows of 7 do not divide
    assert {name: tuple(x.shape) for name, x in features.items()} == {
        name: (1, c, 96 // s, 160 // s) for name, c, s in zip(("res3", "res4", "res5"), channels, (8, 16, 32))
    }


def test_output_norm_normalises_channels_of_every_cell() -> None:
    features = TimmBackbone(**SMALL_SWIN, output_norm=True)(torch.randn(1, 3, 64, 64))
    for x in features.values():
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]), atol=1e-4, rtol=0)


def test_frozen_stages_and_norms_of_a_timm_model_do_not_learn() -> None:
    backbone = TimmBackbone(name="resnet18", frozen_norm=True, freeze_at=2)
    assert not [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(before[name], buffer) for name, buffer in backbone.named_buffers())


def test_features_that_a_timm_model_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="res9"):
        TimmBackbone(name="resnet18", out_features=["res9"])


def test_recomputing_a_timm_models_activations_changes_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = TimmBackbone(**SMALL_SWIN, checkpoint_activations=recompute).train()
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        sum(x.square().sum() for x in backbone(image).values()).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed)

"""The recurrent detector: what cells must predict, its losses, and that it learns pictures by heart."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY, ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import box_iou

from hdetr_d2.compat import load_config, save_config
from hdetr_d2.engine.config import load
from hdetr_d2.matching import LexicographicMatcher
from hdetr_d2.model_zoo import config_path
from hdetr_d2.modeling import CellDecoder, ReInspect
from hdetr_d2.modeling.reinspect.cells import cell_centres, cell_targets
from hdetr_d2.supervision import HybridBranch

# Crowds of filled rectangles, x0, y0, x1, y1 in pixels of 96 x 96, so 3 x 3 cells; some overlap.
PICTURES = [
    [(8, 8, 24, 32), (28, 6, 44, 30), (10, 40, 30, 60), (60, 50, 84, 76)],
    [(40, 40, 56, 60), (50, 44, 66, 66), (70, 8, 88, 30)],
]


class Trunk(Backbone):
    """Five convolutions of stride 2, whose cells see what is around them."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 8, 16, 32, 64, 64]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for layer in self.layers:
            x = layer(x)
        return {"res5": x}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"res5": ShapeSpec(channels=64, stride=32)}


def build(**options: Any) -> ReInspect:
    decoder = CellDecoder(feature_dim=64, hidden_dim=64, dropout=options.pop("dropout", 0.0))
    return ReInspect(backbone=Trunk(), decoder=decoder, feature_dim=64, feature_scale=1.0, **options)


def paint(objects: list[tuple[int, int, int, int]], *, size: tuple[int, int] = (96, 96)) -> dict[str, Any]:
    image = torch.full((3, *size), 120, dtype=torch.uint8)
    for number, (x0, y0, x1, y1) in enumerate(objects):
        image[:, y0:y1, x0:x1] = torch.tensor([250 - 40 * number, 40 * number, 30], dtype=torch.uint8)[:, None, None]
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(objects, dtype=torch.float32).view(-1, 4))
    instances.gt_classes = torch.zeros(len(objects), dtype=torch.int64)
    return {"image": image, "instances": instances}


def literal_targets(boxes: Tensor, centre: Tensor, window: float, limit: int) -> list[tuple[float, ...]]:
    """What the cell around a centre must predict, object by object."""
    found = []
    for cx, cy, w, h in boxes.tolist():
        dx, dy = cx - centre[0].item(), cy - centre[1].item()
        if abs(dx) < (w + window) / 2 and abs(dy) < (h + window) / 2:
            found.append((dx, dy, w, h))
    nearest = sorted(found, key=lambda box: box[0] ** 2 + box[1] ** 2)[:limit]
    return sorted(nearest, key=lambda box: (box[1], box[0]))


@pytest.mark.parametrize("count", [0, 1, 4, 30])
def test_a_cell_predicts_the_nearest_objects_that_touch_its_window_in_reading_order(count: int) -> None:
    boxes = torch.cat([torch.randint(0, 160, (count, 2)).float(), 8 + 40 * torch.rand(count, 2)], dim=1)
    centres = cell_centres((5, 5), 32, torch.device("cpu"))
    found, number = cell_targets(boxes, centres, window=64.0, limit=5)
    assert found.shape == (25, 5, 4)
    for cell, centre in enumerate(centres):
        expected = literal_targets(boxes, centre, 64.0, 5)
        assert number[cell] == len(expected)
        torch.testing.assert_close(found[cell, : len(expected)], torch.tensor(expected).view(-1, 4))
        assert not found[cell, len(expected) :].any()


def test_cells_lie_row_by_row() -> None:
    assert cell_centres((2, 3), 32, torch.device("cpu")).tolist() == [
        [16.0, 16.0],
        [48.0, 16.0],
        [80.0, 16.0],
        [16.0, 48.0],
        [48.0, 48.0],
        [80.0, 48.0],
    ]


def test_all_steps_read_the_same_feature_through_one_lstm_and_heads_of_their_own() -> None:
    decoder = CellDecoder(feature_dim=8, hidden_dim=6, num_steps=3, dropout=0.0)
    features = torch.randn(4, 8)
    logits, boxes = decoder(features)
    assert logits.shape == (4, 3, 2)
    assert boxes.shape == (4, 3, 4)
    state = None
    for step in range(3):
        state = decoder.lstm(features, state)
        torch.testing.assert_close(boxes[:, step], 100.0 * decoder.box_heads[step](state[0]))
        torch.testing.assert_close(logits[:, step], decoder.class_heads[step](state[0]))
    assert max(p.abs().max().item() for p in decoder.parameters()) <= 0.1


def test_losses_are_sums_over_a_cell_divided_by_the_number_of_cells() -> None:
    model = build(matcher=LexicographicMatcher(order="fixed"))
    logits, boxes, target_boxes = torch.randn(3, 5, 2), torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    count = torch.tensor([2, 0, 5])
    losses = model.losses(logits, boxes, target_boxes, count)
    classes, distance = 0.0, 0.0
    for cell in range(3):
        for step in range(5):
            matched = step < count[cell]
            classes -= logits[cell, step].log_softmax(-1)[int(matched)].item()
            if matched:
                distance += (boxes[cell, step] - target_boxes[cell, step]).abs().sum().item()
    assert losses["loss_ce"].item() == pytest.approx(classes / 3, rel=1e-5)
    assert losses["loss_bbox"].item() == pytest.approx(0.03 * distance / 3, rel=1e-5)


@pytest.mark.parametrize("order", ["free", "first_k", "fixed"])
@pytest.mark.parametrize("pictures", [[PICTURES[0], []], [[], []]], ids=["some", "none"])
def test_every_parameter_gets_a_finite_gradient(order: str, pictures: list[list[Any]]) -> None:
    model = build(matcher=LexicographicMatcher(order=order), dropout=0.15).train()
    losses = model([paint(objects) for objects in pictures])
    assert list(losses) == ["loss_ce", "loss_bbox"]
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def learn(model: ReInspect, batch: list[dict[str, Any]], *, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    history = []
    for _ in range(steps):
        total = sum(model.train()(batch).values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(total.item())
    return history


def test_crowded_pictures_are_learned_by_heart() -> None:
    model = build()
    batch = [paint(objects) for objects in PICTURES]
    history = learn(model, batch, steps=300)
    assert history[-1] < 0.1 * history[0]
    for picture, output in zip(batch, model.eval()(batch)):
        wanted = picture["instances"].gt_boxes.tensor
        found = output["instances"][output["instances"].scores > 0.5]
        overlap = box_iou(wanted, found.pred_boxes.tensor)
        assert overlap.max(1).values.min() > 0.8
        assert overlap.argmax(1).unique().numel() == len(wanted)
        assert len(found) <= len(wanted) + 1


@pytest.mark.parametrize("order", ["first_k", "fixed"])
def test_the_other_orders_learn_too(order: str) -> None:
    model = build(matcher=LexicographicMatcher(order=order))
    history = learn(model, [paint(PICTURES[0])], steps=60)
    assert history[-1] < 0.7 * history[0]


def test_detections_have_the_size_that_is_asked_for_and_lie_inside() -> None:
    model = build().eval()
    with torch.no_grad():
        for head in model.decoder.class_heads:
            head.bias.copy_(torch.tensor([0.0, 1.0]))
        for head in model.decoder.box_heads:
            head.bias.copy_(torch.tensor([0.0, 0.0, 0.2, 0.2]))
        plain, scaled = model([paint([], size=(80, 90)), paint([], size=(80, 90)) | {"height": 160, "width": 180}])
    assert scaled["instances"].image_size == (160, 180)
    torch.testing.assert_close(
        2 * plain["instances"].pred_boxes.tensor, scaled["instances"].pred_boxes.tensor, rtol=1e-4, atol=1e-3
    )
    assert len(plain["instances"]) >= 9
    low, high = plain["instances"].pred_boxes.tensor.split(2, dim=1)
    assert (low >= 0).all()
    assert (high <= torch.tensor([90.0, 80.0])).all()
    assert (high > low).all()
    assert (plain["instances"].scores[:-1] >= plain["instances"].scores[1:]).all()


def test_cells_on_padding_detect_nothing() -> None:
    model = build().eval()
    with torch.no_grad():
        for head in model.decoder.class_heads:
            head.bias.copy_(torch.tensor([0.0, 9.0]))
        (small, _) = model([paint([], size=(32, 32)), paint([], size=(96, 96))])
    assert len(small["instances"]) <= 5  # one cell's


def test_it_is_registered_and_refuses_what_it_cannot_do() -> None:
    assert META_ARCH_REGISTRY.get("ReInspect") is ReInspect
    with pytest.raises(ValueError, match="one class"):
        build(num_classes=3)
    with pytest.raises(ValueError, match="HybridBranch does not apply"):
        build(supervision=HybridBranch(num_queries=10, k=2))


def test_the_recipe_is_saved_reloaded_and_builds_a_model_that_runs(tmp_path: Path) -> None:
    config = load(config_path("stewart/reinspect_generated.py"), ["dataset.num_classes=1", "model.feature_dim=32"])
    save_config(config, tmp_path / "config.yaml")
    model = instantiate(load_config(tmp_path / "config.yaml").model)
    assert model.decoder.lstm.input_size == model.project.out_channels == 32
    losses = model.train()([paint(PICTURES[0], size=(160, 160))] * 2)
    assert all(loss.isfinite() for loss in losses.values())
    (output,) = model.eval()([paint([], size=(160, 160))])
    assert output["instances"].image_size == (160, 160)

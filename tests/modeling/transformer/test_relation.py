"""The relation of boxes against numbers worked out by hand, and what it does to attention."""

import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2.layers import GroupView, sine_embedding
from hdetr_d2.modeling import BoxRelation
from hdetr_d2.supervision import PRIMARY
from tests.modeling.family import build, config_of

SOURCE = torch.tensor([[[0.5, 0.5, 0.2, 0.4]]])
TARGETS = torch.tensor([[[0.52, 0.45, 0.2, 0.3], [0.3, 0.7, 0.4, 0.2]]])


def test_relations_are_those_of_the_paper() -> None:
    found = BoxRelation().relations(SOURCE, TARGETS)
    expected = [[0.095306, 0.117780, 0.0, 0.287674], [0.693122, 0.405457, -0.693122, 0.693122]]
    torch.testing.assert_close(found[0, 0], torch.tensor(expected), atol=1e-5, rtol=0)
    waves = sine_embedding(found[0, 0, 0], num_features=16, temperature=10000.0, scale=100.0)
    first = [-0.105579, -0.994411, 0.127420, -0.991849, 0.815189, 0.579195]
    torch.testing.assert_close(waves[0, :6], torch.tensor(first), atol=2e-4, rtol=0)
    torch.testing.assert_close(
        waves[1, :4], torch.tensor([-0.709185, 0.705022, -0.550487, -0.834843]), atol=2e-4, rtol=0
    )


def test_the_bias_is_never_negative_and_trains_the_projection_and_no_box() -> None:
    relation, boxes = BoxRelation(num_heads=4), (torch.rand(2, 5, 4) * 0.4 + 0.3).requires_grad_()
    bias = relation(boxes, boxes)
    assert bias.shape == (2, 4, 5, 5)
    assert bias.min() >= 0
    bias.sum().backward()
    assert boxes.grad is None
    assert relation.projection.weight.grad.any()


def test_each_group_is_given_the_bias_of_what_it_sees() -> None:
    relation, boxes = BoxRelation(num_heads=2), torch.rand(1, 6, 4) * 0.4 + 0.3
    views = [GroupView((0, 4), ((0, 4),)), GroupView((4, 6), ((4, 6), (0, 4)))]
    first, second = relation.views(views, boxes, boxes)
    whole = relation(boxes, boxes)
    torch.testing.assert_close(first.bias, whole[:, :, :4, :4])
    torch.testing.assert_close(second.bias, whole[:, :, 4:][..., [4, 5, 0, 1, 2, 3]])


def test_what_training_adds_changes_nothing_for_the_primary_group() -> None:
    features = {"res3": torch.randn(1, 16, 16, 16), "res4": torch.randn(1, 16, 8, 8), "res5": torch.randn(1, 32, 4, 4)}
    model = build("relation_detr")
    outputs = []
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            outputs.append(model.predict(features, (128, 128), [(128, 128)])[0][PRIMARY])
    torch.testing.assert_close(outputs[0].logits[-1], outputs[1].logits[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs[0].boxes[-1], outputs[1].boxes[-1], atol=1e-5, rtol=0)


def test_points_have_no_relation() -> None:
    other = config_of("deformable_detr")
    other.transformer.decoder.relation = config_of("relation_detr").transformer.decoder.relation
    with pytest.raises(ValueError, match="needs boxes as references"):
        instantiate(other)

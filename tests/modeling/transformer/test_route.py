"""DAC-DETR's second pass: the first layer's self-attention, and none after it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import Tensor

from hdetr_d2.layers import GroupView
from hdetr_d2.modeling import DecoderRoute, DeformableDecoderLayer
from hdetr_d2.modeling.transformer.query_position import PositionalQuery
from hdetr_d2.modeling.transformer.stack import stack
from hdetr_d2.structures import Memory
from hdetr_d2.supervision import PRIMARY
from tests.modeling.family import build

DrawBatch = Callable[..., list[dict[str, Any]]]
ROUTE = "cross_only"


def layers() -> torch.nn.ModuleList:
    route = DecoderRoute(name=ROUTE, embed_dim=32, self_attention=False)
    return stack(DeformableDecoderLayer(embed_dim=32, num_heads=4, num_levels=1, hidden_dim=48, routes=[route]), 3)


def run(layer: torch.nn.Module, content: Tensor, position: Tensor, reference: Tensor, route: str = "") -> Tensor:
    generator = torch.Generator().manual_seed(3)
    memory = Memory(
        tokens=torch.randn(1, 20, 32, generator=generator),
        positions=None,
        padding=None,
        level_sizes=((4, 5),),
        valid_ratios=torch.ones(1, 1, 2),
    )
    views = [GroupView((0, content.shape[1]), ((0, content.shape[1]),))]
    return layer(content, PositionalQuery(position), reference[:, :, None], memory, views, route).content


def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(1, count, 32), torch.randn(1, count, 32), 0.1 + 0.5 * torch.rand(1, count, 4)


def test_the_first_layer_is_that_of_the_plain_route() -> None:
    first, inputs = layers()[0], draw(6)
    assert torch.equal(run(first, *inputs, ROUTE), run(first, *inputs))


@pytest.mark.parametrize("index", [1, 2])
def test_in_later_layers_a_query_depends_on_itself_alone(index: int) -> None:
    layer, inputs = layers()[index], draw(6)
    together = run(layer, *inputs, ROUTE)
    alone = torch.cat([run(layer, *(x[:, i : i + 1] for x in inputs), ROUTE) for i in range(6)], dim=1)
    torch.testing.assert_close(together, alone)
    plain = run(layer, *inputs)
    assert (plain - together).abs().max() > 0.1


def test_the_route_has_no_parameters_of_its_own() -> None:
    assert not list(DecoderRoute(name=ROUTE, self_attention=False).parameters())


@pytest.mark.parametrize("extra", [{"num_instructions": 2}, {"own_norm": True}])
def test_parts_of_self_attention_are_refused_where_there_is_none(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="self_attention=False takes away"):
        DecoderRoute(name=ROUTE, self_attention=False, **extra)


def test_dac_detr_learns_one_to_many_where_queries_are_blind(draw_batch: DrawBatch) -> None:
    model = build("dac_detr").train()
    batch = draw_batch((96, 128, 3), (128, 128, 1))
    images = model.preprocess(batch)
    features = model.backbone(images.tensor)
    predictions, _ = model.predict(features, (128, 128), images.image_sizes, model.targets(batch))
    assert list(predictions) == [PRIMARY, "dn", ROUTE, f"dn_{ROUTE}"]
    for group in ("", "dn"):
        plain, other = predictions[group or PRIMARY], predictions[f"{group}_{ROUTE}".strip("_")]
        assert torch.equal(plain.logits[0], other.logits[0])
        assert (plain.logits[1] - other.logits[1]).abs().max() > 1e-3
    rule = model.supervision.rule(ROUTE, 0, 3, 0.0)
    assert rule.normaliser == 3.0
    assert rule.matcher.may_repeat
    losses = model(batch)
    assert {f"loss_ce_{ROUTE}", f"loss_ce_dn_{ROUTE}", "loss_ce", "loss_ce_dn", "loss_ce_enc"} <= set(losses)
    assert all(value.isfinite() for value in losses.values())


def test_a_config_names_the_route() -> None:
    node = L(DecoderRoute)(name=ROUTE, self_attention=False)
    assert node.name == ROUTE

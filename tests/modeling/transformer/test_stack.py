"""Layers that are made after a pattern."""

import pytest
import torch
from torch import nn

from hdetr_d2.modeling import (
    ConditionalDecoderLayer,
    DecoderRoute,
    DeformableDecoderLayer,
    DenseDecoderLayer,
    DenseEncoderLayer,
)
from hdetr_d2.modeling.transformer.stack import stack

SIZES = {"embed_dim": 32, "num_heads": 4, "hidden_dim": 48}


@pytest.mark.parametrize(
    "kind", [ConditionalDecoderLayer, DeformableDecoderLayer, DenseDecoderLayer, DenseEncoderLayer]
)
def test_layers_share_no_weight_and_have_the_vectors_of_the_pattern(kind: type[nn.Module]) -> None:
    pattern = kind(**SIZES)
    before = {key: value.clone() for key, value in pattern.state_dict().items()}
    first, second = (dict(layer.named_parameters()) for layer in stack(pattern, 2))
    for key, parameter in second.items():
        assert parameter.data_ptr() != first[key].data_ptr()
        if parameter.dim() > 1 and "sampling_offsets" not in key and "attention_weights" not in key:
            assert not torch.equal(parameter, first[key])
        elif "cross_attn" not in key:  # deformable attention starts at values of its own
            assert torch.equal(parameter, before[key])
    assert all(torch.equal(value, before[key]) for key, value in pattern.state_dict().items())


def test_only_the_first_conditional_layer_adds_positions_to_contents() -> None:
    pattern = ConditionalDecoderLayer(**SIZES)
    has = ["query_position" in layer.cross_attn for layer in stack(pattern, 3)]
    assert has == [True, False, False]
    assert "query_position" in pattern.cross_attn


def test_a_route_without_self_attention_has_it_in_the_first_layer() -> None:
    routes = [DecoderRoute(name="a", embed_dim=32, self_attention=False), DecoderRoute(name="b", embed_dim=32)]
    layers = stack(DeformableDecoderLayer(**SIZES, routes=routes), 3)
    assert [[route.attends for route in layer.routes.values()] for layer in layers] == [[1, 1], [0, 1], [0, 1]]
    assert [route.attends for route in routes] == [True, True]


def test_a_layer_that_is_no_pattern_is_copied() -> None:
    first, second = stack(nn.Linear(3, 3), 2)
    assert not torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)

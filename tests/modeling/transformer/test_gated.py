"""The gate of D-FINE's layers, and layers that are wider than the others."""

import torch

from hdetr_d2.modeling import GatedDecoderLayer
from hdetr_d2.modeling.transformer.gated import Gate, widened
from hdetr_d2.modeling.transformer.stack import stack


def test_a_gate_starts_with_half_of_both_and_weighs_by_what_both_say() -> None:
    gate = Gate(embed_dim=4)
    content, update = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    torch.testing.assert_close(gate(content, update), gate.norm(0.5 * (content + update)))
    torch.nn.init.constant_(gate.gate.bias[:4], 50.0)
    torch.nn.init.constant_(gate.gate.bias[4:], -50.0)
    torch.testing.assert_close(gate(content, update), gate.norm(content))


def test_layers_of_a_stack_start_with_open_gates() -> None:
    layers = stack(GatedDecoderLayer(embed_dim=8, num_heads=2, hidden_dim=8), 2)
    assert not any(layer.gate.gate.weight.any() for layer in layers)
    assert not any("cross_attn_norm" in name or "value_proj" in name for name in layers.state_dict())


def test_layers_from_a_place_on_are_wider() -> None:
    pattern = GatedDecoderLayer(embed_dim=8, num_heads=2, hidden_dim=12, wide_from=1, widening=1.5)
    widths = [(layer.embed_dim, layer.ffn.linear1.out_features) for layer in stack(pattern, 3)]
    assert widths == [(8, 12), (12, 18), (12, 18)]


def test_channels_are_repeated_to_a_greater_width() -> None:
    x = torch.arange(4.0).expand(2, 3, 4)
    assert widened(x, 8)[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert widened(x, 6)[1, 2].tolist() == [0, 0, 1, 2, 2, 3]
    assert widened(x, 4) is x

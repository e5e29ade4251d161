"""The deformable attention module against grid_sample and the published initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdetr_d2.layers import MLP, MultiScaleDeformableAttention

SHAPES = torch.tensor([[6, 8], [3, 4]])
TOKENS = int(SHAPES.prod(1).sum())


def drawn_module() -> MultiScaleDeformableAttention:
    module = MultiScaleDeformableAttention(embed_dim=16, num_heads=4, num_levels=2, num_points=3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


def sample_plainly(
    module: MultiScaleDeformableAttention, query: Tensor, reference: Tensor, memory: Tensor, padding: Tensor | None
) -> Tensor:
    """Equation by equation with grid_sample."""
    batch, queries, width = query.shape
    heads, levels, points = module.num_heads, module.num_levels, module.num_points
    value = F.linear(memory, module.value_proj.weight, module.value_proj.bias)
    if padding is not None:
        value = value * (~padding)[..., None]
    offsets = F.linear(query, module.sampling_offsets.weight, module.sampling_offsets.bias)
    offsets = offsets.view(batch, queries, heads, levels, points, 2)
    weights = F.linear(query, module.attention_weights.weight, module.attention_weights.bias)
    weights = weights.view(batch, queries, heads, levels * points).softmax(-1)
    weights = weights.unflatten(-1, (levels, points))
    output = torch.zeros(batch, queries, heads, width // heads, dtype=query.dtype)
    start = 0
    for level, (height, across) in enumerate(SHAPES.tolist()):
        part = value[:, start : start + height * across].view(batch, height, across, heads, -1)
        start += height * across
        place = reference[:, :, None, level, None, :]
        if reference.shape[-1] == 2:
            location = place + offsets[:, :, :, level] / torch.tensor([across, height])
        else:
            location = place[..., :2] + offsets[:, :, :, level] / points * place[..., 2:] * 0.5
        for head in range(heads):
            grid = 2 * location[:, :, head] - 1
            sampled = F.grid_sample(part[..., head, :].permute(0, 3, 1, 2), grid, align_corners=False)
            output[:, :, head] += (sampled * weights[:, None, :, head, level]).sum(-1).transpose(1, 2)
    return F.linear(output.flatten(2), module.output_proj.weight, module.output_proj.bias)


@pytest.mark.parametrize("dimensions", [2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_output_and_gradients_are_those_of_grid_sample(dimensions: int, padded: bool) -> None:
    module = drawn_module()
    reference = torch.rand(2, 5, 2, dimensions, dtype=torch.float64)
    padding = torch.rand(2, TOKENS) < 0.3 if padded else None
    query, memory = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, TOKENS, 16, dtype=torch.float64)
    results = []
    for function in (
        lambda q, r, m: module(q, r, m, SHAPES, padding),
        lambda q, r, m: sample_plainly(module, q, r, m, padding),
    ):
        leaves = [x.clone().requires_grad_() for x in (query, reference, memory)]
        output = function(*leaves)
        gradients = torch.autograd.grad(output.square().sum(), [*leaves, *module.parameters()])
        results.append([output, *gradients])
    for ours, plain in zip(*results):
        torch.testing.assert_close(ours, plain)


def test_what_stands_on_padding_is_never_read() -> None:
    module = drawn_module()
    query, memory = torch.randn(1, 5, 16, dtype=torch.float64), torch.randn(1, TOKENS, 16, dtype=torch.float64)
    reference = torch.rand(1, 5, 2, 2, dtype=torch.float64)
    padding = torch.zeros(1, TOKENS, dtype=torch.bool)
    padding[:, 20:40] = True
    other = memory.masked_fill(padding[..., None], 1e6)
    expected = module(query, reference, memory, SHAPES, padding)
    assert torch.equal(module(query, reference, other, SHAPES, padding), expected)
    assert not torch.allclose(module(query, reference, memory, SHAPES, None), expected)


def test_every_head_starts_in_its_own_direction_with_points_one_cell_apart() -> None:
    module = MultiScaleDeformableAttention(embed_dim=32, num_heads=8, num_levels=3, num_points=4)
    bias = module.sampling_offsets.bias.view(8, 3, 4, 2)
    for head in range(8):
        x, y = math.cos(2 * math.pi * head / 8), math.sin(2 * math.pi * head / 8)
        longest = max(abs(x), abs(y))
        for level in range(3):
            for point in range(4):
                expected = [x / longest * (point + 1), y / longest * (point + 1)]
                assert bias[head, level, point].tolist() == pytest.approx(expected, abs=1e-5)
    zeros = (module.sampling_offsets.weight, *module.attention_weights.parameters())
    assert all(not x.any() for x in (*zeros, module.value_proj.bias, module.output_proj.bias))
    bound = math.sqrt(6 / 64)  # xavier, uniform
    for projection in (module.value_proj, module.output_proj):
        assert 0.9 * bound < projection.weight.abs().max() <= bound


def test_locations_stay_in_single_precision_under_autocast() -> None:
    module = drawn_module().float()
    with torch.no_grad():
        module.attention_weights.weight.zero_()
    query, memory = torch.randn(1, 50, 16), torch.randn(1, TOKENS, 16)
    reference = torch.rand(1, 50, 2, 2)
    seen = {}
    module.sampling_offsets.register_forward_hook(lambda m, i, output: seen.update(offsets=output))
    exact = module(query, reference, memory, SHAPES, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(query, reference, memory, SHAPES, None)
        from_half = module(query.bfloat16(), reference, memory, SHAPES, None)
    assert seen["offsets"].dtype == torch.float32
    assert output.dtype == from_half.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, atol=0.03, rtol=0.03)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="10.*num_heads 4"):
        MultiScaleDeformableAttention(embed_dim=10, num_heads=4)


def test_an_mlp_can_be_made_to_start_at_a_value_whatever_it_reads() -> None:
    mlp = MLP(in_features=6, hidden_features=7, out_features=4, num_layers=3)
    mlp.start_at(torch.tensor([0.0, 1.0, -2.0, 3.0]))
    assert torch.equal(mlp(torch.randn(5, 6)), torch.tensor([0.0, 1.0, -2.0, 3.0]).expand(5, 4))
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(7, 6), (7, 7), (4, 7)]
    with pytest.raises(ValueError, match="num_layers"):
        MLP(in_features=6, hidden_features=7, out_features=4, num_layers=0)

"""The deformable attention module against grid_sample and the published initialisation."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import MLP, MultiScaleDeformableAttention
from hdetr_d2.layers.deformable_attention import project
from hdetr_d2.ops.onnx import onnx_translations

SHAPES = torch.tensor([[6, 8], [3, 4]])
TOKENS = int(SHAPES.prod(1).sum())


def drawn_module(num_points: int | list[int] = 3, **options: Any) -> MultiScaleDeformableAttention:
    module = MultiScaleDeformableAttention(embed_dim=16, num_heads=4, num_levels=2, num_points=num_points, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


def sample_plainly(
    module: MultiScaleDeformableAttention, query: Tensor, reference: Tensor, memory: Tensor, padding: Tensor | None
) -> Tensor:
    """Equation by equation, level after level; points of all levels lie side by side in the parameters."""
    batch, queries, width = query.shape
    heads, points = module.num_heads, module.points
    value = F.linear(memory, module.value_proj.weight, module.value_proj.bias)
    if padding is not None:
        value = value * (~padding)[..., None]
    offsets = F.linear(query, module.sampling_offsets.weight, module.sampling_offsets.bias)
    offsets = offsets.view(batch, queries, heads, sum(points), 2).split(points, dim=3)
    weights = F.linear(query, module.attention_weights.weight, module.attention_weights.bias)
    weights = weights.view(batch, queries, heads, sum(points)).softmax(-1).split(points, dim=3)
    output = torch.zeros(batch, queries, heads, width // heads, dtype=query.dtype)
    start = 0
    for level, (height, across) in enumerate(SHAPES.tolist()):
        part = value[:, start : start + height * across].view(batch, height, across, heads, -1)
        start += height * across
        place = reference[:, :, None, level, None, :]
        if reference.shape[-1] == 2:
            location = place + offsets[level] / torch.tensor([across, height])
        else:
            location = place[..., :2] + offsets[level] / points[level] * place[..., 2:] * 0.5
        for head in range(heads):
            feature = part[..., head, :].permute(0, 3, 1, 2)
            if module.method == "discrete":
                sampled = read_cells(feature, location[:, :, head], authors=module.authors_clamp)
            else:
                sampled = F.grid_sample(feature, 2 * location[:, :, head] - 1, align_corners=False)
            output[:, :, head] += (sampled * weights[level][:, None, :, head]).sum(-1).transpose(1, 2)
    return F.linear(output.flatten(2), module.output_proj.weight, module.output_proj.bias)


def read_cells(feature: Tensor, location: Tensor, *, authors: bool) -> Tensor:
    """(B, D, H, W) at (B, Q, P, 2), one number at a time: (B, D, Q, P)."""
    height, across = feature.shape[-2:]
    output = feature.new_zeros(*feature.shape[:2], *location.shape[1:3])
    for image, query, point in itertools.product(*map(range, location.shape[:3])):
        x, y = location[image, query, point].tolist()
        column = min(max(int(x * across + 0.5), 0), (height if authors else across) - 1)
        row = min(max(int(y * height + 0.5), 0), height - 1)
        output[image, :, query, point] = feature[image, :, row, column]
    return output


def assert_equal_to_plain_sampling(
    module: MultiScaleDeformableAttention, reference: Tensor, padding: Tensor | None = None
) -> None:
    """Outputs and gradients of inputs and parameters, None where there is none."""
    query, memory = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, TOKENS, 16, dtype=torch.float64)
    results = []
    for function in (
        lambda q, r, m: module(q, r, m, SHAPES, padding),
        lambda q, r, m: sample_plainly(module, q, r, m, padding),
    ):
        leaves = [x.clone().requires_grad_() for x in (query, reference, memory)]
        output = function(*leaves)
        wanted = [*leaves, *(p for p in module.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(output.square().sum(), wanted, materialize_grads=True)
        results.append([output, *gradients])
    for ours, plain in zip(*results):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("num_points", [3, [4, 1], [2, 3]])
@pytest.mark.parametrize("dimensions", [2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_output_and_gradients_are_those_of_grid_sample(
    num_points: int | list[int], dimensions: int, padded: bool
) -> None:
    padding = torch.rand(2, TOKENS) < 0.3 if padded else None
    reference = torch.rand(2, 5, 2, dimensions, dtype=torch.float64)
    assert_equal_to_plain_sampling(drawn_module(num_points), reference, padding)


@pytest.mark.parametrize("num_points", [2, [3, 1]])
@pytest.mark.parametrize("authors_clamp", [False, True])
def test_discrete_sampling_reads_the_cells_that_rounding_gives(
    num_points: int | list[int], authors_clamp: bool
) -> None:
    module = drawn_module(num_points, method="discrete", authors_clamp=authors_clamp)
    reference = torch.rand(2, 5, 2, 4, dtype=torch.float64) * torch.tensor([1.6, 1.6, 1.0, 1.0]) - 0.3
    assert_equal_to_plain_sampling(module, reference)
    assert not module.sampling_offsets.weight.requires_grad
    assert not module.sampling_offsets.bias.requires_grad
    other = drawn_module(num_points, method="discrete", authors_clamp=not authors_clamp)
    other.load_state_dict(module.state_dict())
    query, memory = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, TOKENS, 16, dtype=torch.float64)
    assert not torch.equal(*(m(query, reference, memory, SHAPES, None) for m in (module, other)))


@pytest.mark.parametrize("clamp", [False, True])
def test_discrete_sampling_reads_within_a_tall_level_whatever_the_location(clamp: bool) -> None:
    module = drawn_module(2, method="discrete", authors_clamp=clamp)
    shapes = torch.tensor([[8, 3], [4, 1]])
    reference = torch.tensor([math.inf, -math.inf, math.nan, 1e30, -1e30]).double()[None, :, None, None]
    memory = torch.randn(1, 28, 16, dtype=torch.float64)
    query = torch.randn(1, 5, 16, dtype=torch.float64)
    assert module(query, reference.expand(1, 5, 2, 4), memory, shapes, None).isfinite().all()


@pytest.mark.parametrize(("num_points", "method"), [([3, 1], "bilinear"), ([3, 1], "discrete")])
def test_the_module_is_captured_as_one_graph(num_points: list[int], method: str) -> None:
    module = drawn_module(num_points, method=method)
    query, memory = torch.randn(1, 5, 16, dtype=torch.float64), torch.randn(1, TOKENS, 16, dtype=torch.float64)
    arguments = (query, torch.rand(1, 5, 2, 4, dtype=torch.float64), memory, SHAPES, None)
    captured = torch.compile(module, backend="aot_eager", fullgraph=True)
    results = []
    for function in (captured, module):
        module.zero_grad()
        output = function(*arguments)
        output.square().sum().backward()
        results.append([output, *(p.grad for p in module.parameters() if p.requires_grad)])
    for ours, eager in zip(*results):
        torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize(("method", "grid_samples"), [("bilinear", 2), ("discrete", 0)])
def test_an_exported_module_gives_the_same_in_onnxruntime(tmp_path: Path, method: str, grid_samples: int) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = OnMaps(drawn_module([3, 1], method=method).float()).eval()
    file, batch = tmp_path / "attention.onnx", torch.export.Dim("batch")

    def draw(size: int) -> list[Tensor]:
        return [torch.randn(size, 5, 16), torch.rand(size, 5, 2, 4), torch.randn(size, TOKENS, 16)]

    torch.onnx.export(
        module,
        tuple(draw(2)),
        str(file),
        dynamo=True,
        opset_version=18,
        input_names=["query", "reference", "memory"],
        dynamic_shapes=({0: batch},) * 3,
        custom_translation_table=onnx_translations(),
    )
    nodes = onnx.load(str(file)).graph.node
    assert sum(node.op_type == "GridSample" for node in nodes) == grid_samples
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for size in (3, 1):
        arguments = draw(size)
        names = ("query", "reference", "memory")
        (theirs,) = session.run(None, {name: x.numpy() for name, x in zip(names, arguments)})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(theirs), module(*arguments), atol=1e-5, rtol=1e-4)


class OnMaps(torch.nn.Module):
    """The module over maps of fixed size, as a deployed model has them."""

    def __init__(self, attention: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, reference: Tensor, memory: Tensor) -> Tensor:
        return self.attention(query, reference, memory, torch.tensor(SHAPES.tolist()), None)


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


@pytest.mark.parametrize("points", [[4, 4, 4], [4, 1, 2]])
def test_every_head_starts_in_its_own_direction_with_points_one_cell_apart(points: list[int]) -> None:
    module = MultiScaleDeformableAttention(embed_dim=32, num_heads=8, num_levels=3, num_points=points)
    bias = module.sampling_offsets.bias.view(8, sum(points), 2).split(points, dim=1)
    for head in range(8):
        x, y = math.cos(2 * math.pi * head / 8), math.sin(2 * math.pi * head / 8)
        longest = max(abs(x), abs(y))
        for level in range(3):
            for point in range(points[level]):
                expected = [x / longest * (point + 1), y / longest * (point + 1)]
                assert bias[level][head, point].tolist() == pytest.approx(expected, abs=1e-5)
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
    seen: dict[str, Any] = {}
    module.sampling_offsets.register_forward_hook(lambda m, i, output: seen.update(offsets=output))
    exact = module(query, reference, memory, SHAPES, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(query, reference, memory, SHAPES, None)
        from_half = module(query.bfloat16(), reference, memory, SHAPES, None)
    assert seen["offsets"].dtype == torch.float32
    assert output.dtype == from_half.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, atol=0.03, rtol=0.03)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10.*num_heads 4"):
        MultiScaleDeformableAttention(embed_dim=10, num_heads=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_points": [4, 4]}, r"\[4, 4\].*3 levels"),
        ({"num_points": [4, 0, 2]}, "at least 1"),
        ({"method": "nearest"}, "nearest.*bilinear.*discrete"),
        ({"authors_clamp": True}, 'method="discrete"'),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiScaleDeformableAttention(embed_dim=16, num_heads=4, num_levels=3, **options)


def test_an_mlp_can_be_made_to_start_at_a_value_whatever_it_reads() -> None:
    mlp = MLP(in_features=6, hidden_features=7, out_features=4, num_layers=3)
    mlp.start_at(torch.tensor([0.0, 1.0, -2.0, 3.0]))
    assert torch.equal(mlp(torch.randn(5, 6)), torch.tensor([0.0, 1.0, -2.0, 3.0]).expand(5, 4))
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(7, 6), (7, 7), (4, 7)]
    with pytest.raises(ValueError, match="num_layers"):
        MLP(in_features=6, hidden_features=7, out_features=4, num_layers=0)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2.0**-9), (torch.float16, 2.0**-12)])
def test_offsets_of_half_precision_factors_are_as_near_to_float64_as_these_factors_allow(
    dtype: torch.dtype, unit: float
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 64).double()
    query = torch.randn(50, 256, dtype=torch.float64) + torch.rand(50, 256, dtype=torch.float64)
    with torch.no_grad():
        linear.bias.mul_(100)
        exact = linear(query)
        found = project(query.float(), copy.deepcopy(linear).float(), dtype)
        assert found.dtype == torch.float32
        # each factor and the product are rounded once to nearest, to which the sum in float32 adds little
        bound = 3.1 * unit * (query.abs() @ linear.weight.abs().t()) + 2.0**-22 * exact.abs()
        assert ((found - exact).abs() <= bound).all()
        with torch.autocast("cpu", dtype=dtype):
            assert (linear.float()(query.float()) - exact).norm() > 2 * (found - exact).norm()  # rounds the bias too

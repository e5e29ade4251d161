"""The kernels against the PyTorch reference: values, gradients, hostile inputs, errors. On CUDA too if there is one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hdetr_d2.ops import (
    ms_deform_attn,
    ms_deform_attn_fused,
    ms_deform_attn_fused_reference,
    ms_deform_attn_reference,
)
from tests.ops.problems import DEVICES, FORMS, Problem, random_problem, some_leaves

FUNCTIONS = {
    "plain": (ms_deform_attn, ms_deform_attn_reference),
    "fused": (ms_deform_attn_fused, ms_deform_attn_fused_reference),
}
# What rounding the result to the type of value allows, relative to the largest number of the reference.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}

on_devices = pytest.mark.parametrize("device", DEVICES)
in_forms = pytest.mark.parametrize(("form", "reference_width"), FORMS)


def check_equal(problem: Problem, form: str, tolerance: float | None = None) -> None:
    """Output and every gradient equal those of the reference, to what the type of value can hold."""
    compiled, reference = FUNCTIONS[form]
    tolerance = TOLERANCE[problem.arguments[0].dtype] if tolerance is None else tolerance
    for ours, theirs in zip(problem.run(compiled), problem.run(reference)):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if ours.numel():
            scale = max(float(theirs.abs().max()), 1e-3)
            assert float((ours - theirs).abs().max()) <= tolerance * scale


def test_the_compiled_operators_are_loaded() -> None:
    from hdetr_d2.ops import _extension

    assert _extension.WHY_NOT is None
    assert set(DEVICES) <= _extension.KERNELS


@on_devices
@in_forms
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", [1, 5, 16, 32, 40, 64])
def test_equals_the_reference_at_any_head_width(
    device: str, form: str, reference_width: int, dtype: torch.dtype, width: int
) -> None:
    check_equal(random_problem(form, reference_width, device=device, dtype=dtype, width=width, queries=9), form)


@on_devices
@in_forms
@pytest.mark.parametrize(
    ("shapes", "points", "heads", "queries", "batch"),
    [
        (((9, 8),), 1, 1, 1, 1),
        (((9, 8), (5, 4), (3, 2), (1, 1)), 4, 8, 300, 1),
        (((1, 1),), 7, 3, 37, 3),
        (((2, 2),) * 18, 1, 2, 4, 2),
        (((4, 4), (0, 5), (2, 3)), 2, 2, 4, 1),
        (((1, 40), (40, 1)), 17, 1, 6, 2),
    ],
)
def test_equals_the_reference_with_any_levels_points_and_heads(
    device: str,
    form: str,
    reference_width: int,
    shapes: tuple[tuple[int, int], ...],
    points: int,
    heads: int,
    queries: int,
    batch: int,
) -> None:
    sizes = {"shapes": shapes, "points": points, "heads": heads, "queries": queries, "batch": batch}
    check_equal(random_problem(form, reference_width, device=device, dtype=torch.float32, **sizes), form)


@on_devices
@in_forms
def test_many_queries_take_the_packed_backward_and_equal_the_reference(
    device: str, form: str, reference_width: int
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        check_equal(random_problem(form, reference_width, device=device, dtype=dtype, queries=700, batch=1), form)


@in_forms
def test_few_heads_and_many_threads_split_the_queries(form: str, reference_width: int) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        problem = random_problem(
            form, reference_width, dtype=torch.float32, batch=1, heads=1, queries=601, shapes=((20, 30), (2, 2))
        )
        check_equal(problem, form)
        first, second = problem.run(FUNCTIONS[form][0]), problem.run(FUNCTIONS[form][0])
        assert all(torch.equal(a, b) for a, b in zip(first, second))
    finally:
        torch.set_num_threads(threads)


@on_devices
@in_forms
def test_gradients_are_the_numerical_ones(device: str, form: str, reference_width: int) -> None:
    problem = random_problem(
        form, reference_width, device=device, batch=1, queries=2, heads=2, width=3, points=2, shapes=((4, 3), (2, 2))
    )
    assert torch.autograd.gradcheck(FUNCTIONS[form][0], problem.arguments, eps=1e-7, nondet_tol=1e-12)


@on_devices
def test_hand_computed_bilinear_sample(device: str) -> None:
    value = torch.tensor([1.0, 2.0, 3.0, 4.0], device=device).reshape(1, 4, 1, 1)
    shapes = torch.tensor([[2, 2]])
    #                      the centre; the first pixel's centre; the left border, half outside; the corner, 3/4 outside
    points = torch.tensor([[0.5, 0.5], [0.25, 0.25], [0.0, 0.25], [0.0, 0.0]], device=device)
    locations = points.reshape(1, 4, 1, 1, 1, 2)
    output = ms_deform_attn(value, shapes, locations, torch.full((1, 4, 1, 1, 1), 2.0, device=device))
    assert output.flatten().tolist() == pytest.approx([5.0, 2.0, 1.0, 0.5])


@on_devices
def test_a_sample_on_a_pixel_centre_has_the_slope_of_grid_sample(device: str) -> None:
    problem = random_problem(device=device, dtype=torch.float32, shapes=((4, 4),), points=1, queries=16, heads=1)
    value, shapes, _, weights = problem.arguments
    centres = (torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1) + 0.5) / 4
    locations = centres.reshape(1, 16, 1, 1, 1, 2).repeat(2, 1, 1, 1, 1, 1).to(value).requires_grad_()
    check_equal(Problem((value, shapes, locations, weights)), "plain")


@on_devices
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3.0])
def test_a_location_that_is_not_finite_or_far_outside_reads_zeros(device: str, number: float) -> None:
    problem = random_problem(device=device, dtype=torch.float32)
    value, shapes, locations, weights = problem.arguments
    bad = locations.detach().clone()
    bad[:, 1, :, :, 0, 0] = number
    bad[:, 2, :, 1, :, 1] = number
    hostile = Problem((value, shapes, bad.requires_grad_(), weights))
    check_equal(hostile, "plain")
    output, _, grad_locations, grad_weights = hostile.run(ms_deform_attn)
    assert output.isfinite().all()
    assert grad_locations.isfinite().all()
    assert not grad_locations[:, 1, :, :, 0].any()
    assert not grad_weights[:, 2, :, 1].any()


@on_devices
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_bad_logits_spoil_their_query_and_no_other(device: str, number: float) -> None:
    value, shapes, offsets, logits, reference = random_problem("fused", 2, device=device, dtype=torch.float32).arguments
    bad = logits.detach().clone()
    bad[0, 1] = number
    good = ms_deform_attn_fused(value, shapes, offsets, logits, reference)
    output = ms_deform_attn_fused(value, shapes, offsets, bad, reference)
    others = [0, 2, 3, 4]
    assert output[0, 1].isnan().all()
    assert torch.equal(output[:, others], good[:, others])
    assert torch.equal(output[1], good[1])


@on_devices
def test_softmax_of_large_logits_does_not_overflow(device: str) -> None:
    problem = random_problem("fused", 4, device=device, dtype=torch.float32)
    value, shapes, offsets, logits, reference = problem.arguments
    large = (logits.detach() * 300).requires_grad_()
    check_equal(Problem((value, shapes, offsets, large, reference)), "fused")


@on_devices
@in_forms
@pytest.mark.parametrize("empty", [{"queries": 0}, {"batch": 0}, {"heads": 0}, {"points": 0}, {"shapes": ((0, 3),)}])
def test_empty_arguments_give_zeros_and_zero_gradients(
    device: str, form: str, reference_width: int, empty: dict[str, int]
) -> None:
    problem = random_problem(form, reference_width, device=device, dtype=torch.float32, **empty)
    output, *gradients = problem.run(FUNCTIONS[form][0])
    value, _, positions = problem.arguments[:3]
    assert output.shape == (value.shape[0], positions.shape[1], value.shape[2] * value.shape[3])
    assert not output.any()
    assert all(not gradient.any() for gradient in gradients)


@on_devices
@in_forms
def test_arguments_need_not_be_contiguous_or_aligned(device: str, form: str, reference_width: int) -> None:
    problem = random_problem(form, reference_width, device=device, dtype=torch.float32)
    expected = FUNCTIONS[form][1](*problem.arguments)

    def scattered(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor], dim=-1).movedim(-1, 0)[1]

    def shifted(tensor: Tensor) -> Tensor:
        return torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape)

    for move in (scattered, shifted):
        arguments = [move(tensor.detach()) for tensor in problem.arguments]
        assert torch.allclose(FUNCTIONS[form][0](*arguments), expected, atol=1e-5)
    grad = torch.ones_like(expected[:, :1]).expand_as(expected)  # not contiguous either
    output = FUNCTIONS[form][0](*problem.arguments)
    ours = torch.autograd.grad(output, problem.leaves, grad)
    theirs = torch.autograd.grad(FUNCTIONS[form][1](*problem.arguments), problem.leaves, grad)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs))


@in_forms
def test_backward_on_the_cpu_gives_the_same_bits_every_time(form: str, reference_width: int) -> None:
    for queries in (3, 300):
        problem = random_problem(form, reference_width, dtype=torch.float32, queries=queries)
        first = problem.run(FUNCTIONS[form][0])
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(problem.run(FUNCTIONS[form][0]), first))


@on_devices
@pytest.mark.parametrize("form", ["plain", "fused"])
def test_only_wanted_gradients_are_made(device: str, form: str) -> None:
    problem = random_problem(form, 2, device=device, dtype=torch.float32)
    arguments = [tensor.detach() for tensor in problem.arguments]
    arguments[0].requires_grad_()
    FUNCTIONS[form][0](*arguments).sum().backward()
    assert arguments[0].grad is not None
    assert all(tensor.grad is None for tensor in arguments[1:])


@on_devices
def test_half_values_keep_float32_locations_and_gradients(device: str) -> None:
    """A location that float16 cannot hold on a 167 wide level still moves the output, and its gradient is float32."""
    value = torch.arange(167.0, device=device).reshape(1, 167, 1, 1).half()
    locations = torch.tensor([0.9001, 0.5], device=device).reshape(1, 1, 1, 1, 1, 2).requires_grad_()
    weights = torch.ones(1, 1, 1, 1, 1, device=device)
    output = ms_deform_attn(value, torch.tensor([[1, 167]]), locations, weights)
    assert output.dtype == torch.float16
    assert float(output.detach()) == pytest.approx(0.9001 * 167 - 0.5, abs=0.07)  # float16 has a step of 1/8 there
    output.sum().backward()
    assert locations.grad is not None
    assert locations.grad.dtype == torch.float32
    assert float(locations.grad[..., 0]) == pytest.approx(167.0)


WRONG: list[tuple[str, str, Callable[[list[Tensor]], object]]] = []


def wrong(form: str, message: str) -> Callable[[Callable[[list[Tensor]], object]], Callable[[list[Tensor]], object]]:
    """Collect a function that spoils an argument list, with what the error must say."""

    def collect(spoil: Callable[[list[Tensor]], object]) -> Callable[[list[Tensor]], object]:
        WRONG.append((form, message, spoil))
        return spoil

    return collect


@wrong("plain", r"value must be \(batch, tokens, heads, width\), got shape \[2, 56, 64\]")
def value_of_three_dimensions(arguments: list[Tensor]) -> None:
    arguments[0] = arguments[0].flatten(2)


@wrong("plain", r"spatial_shapes must be \(levels, 2\) of \(height, width\), got shape \[6\]")
def flat_spatial_shapes(arguments: list[Tensor]) -> None:
    arguments[1] = arguments[1].flatten()


@wrong("plain", "spatial_shapes must be int64, got Int")
def spatial_shapes_of_int32(arguments: list[Tensor]) -> None:
    arguments[1] = arguments[1].int()


@wrong("plain", r"spatial_shapes .* = \[6, 7, 3, 4, 1, 3\] .*tokens")
def levels_that_do_not_add_up(arguments: list[Tensor]) -> None:
    arguments[1] = torch.tensor([[6, 7], [3, 4], [1, 3]])


@wrong("plain", "spatial_shapes .* do not add up to the 56 tokens")
def a_negative_level(arguments: list[Tensor]) -> None:
    arguments[1] = torch.tensor([[6, 7], [-3, -4], [1, 2]])


@wrong("plain", "spatial_shapes .* do not add up to the 56 tokens")
def a_level_whose_size_overflows(arguments: list[Tensor]) -> None:
    arguments[1] = torch.tensor([[2**62, 4], [3, 4], [1, 2]])


@wrong("plain", r"sampling_locations must be .* got shape \[2, 5, 2, 3, 3, 3\]")
def locations_of_three_coordinates(arguments: list[Tensor]) -> None:
    arguments[2] = arguments[2][..., [0, 1, 1]]


@wrong("plain", r"sampling_locations must be .* heads 2 of value \[2, 56, 2, 32\].* got shape \[2, 5, 1, 3, 3, 2\]")
def locations_of_too_few_heads(arguments: list[Tensor]) -> None:
    arguments[2] = arguments[2][:, :, :1]


@wrong(
    "plain", r"attention_weights must be .* = \[2, 5, 2, 3, 3\] like sampling_locations, got shape \[2, 4, 2, 3, 3\]"
)
def weights_of_too_few_queries(arguments: list[Tensor]) -> None:
    arguments[3] = arguments[3][:, 1:]


@wrong("fused", r"attention_logits must be .* = \[2, 5, 2, 9\] .* got shape \[2, 5, 2, 8\]")
def too_few_logits(arguments: list[Tensor]) -> None:
    arguments[3] = arguments[3][..., 1:]


@wrong("fused", r"reference_points must be \(batch, queries, levels, 2 or 4\) .* got shape \[2, 5, 3, 3\]")
def reference_points_of_three_coordinates(arguments: list[Tensor]) -> None:
    arguments[4] = arguments[4][..., [0, 1, 1]]


@wrong("fused", r"reference_points must be .* got shape \[2, 5, 2\]")
def reference_points_without_levels(arguments: list[Tensor]) -> None:
    arguments[4] = arguments[4][:, :, 0]


@on_devices
@pytest.mark.parametrize(("form", "message", "spoil"), WRONG, ids=[entry[2].__name__ for entry in WRONG])
def test_an_argument_that_does_not_fit_is_named(
    device: str, form: str, message: str, spoil: Callable[[list[Tensor]], object]
) -> None:
    problem = random_problem(form, 2, device=device, dtype=torch.float32)
    arguments = [tensor.detach() for tensor in problem.arguments]
    spoil(arguments)
    with pytest.raises(RuntimeError, match=f"ms_deform_attn: {message}"):
        FUNCTIONS[form][0](*arguments)


@on_devices
def test_value_of_integers_is_refused(device: str) -> None:
    arguments = [tensor.detach() for tensor in random_problem(device=device, dtype=torch.float32).arguments]
    with pytest.raises(RuntimeError, match="value must be float32, float64, float16 or bfloat16, got Int"):
        ms_deform_attn(arguments[0].int(), *arguments[1:])


@on_devices
def test_the_operator_itself_refuses_half_locations(device: str) -> None:
    value, shapes, locations, weights = (
        t.detach() for t in random_problem(device=device, dtype=torch.float16).arguments
    )
    with pytest.raises(RuntimeError, match="sampling_locations must be Float when value is Half, got Half"):
        torch.ops.hdetr_d2.ms_deform_attn(value, shapes, locations.half(), weights)


@on_devices
@in_forms
@pytest.mark.parametrize("queries", [3, 40])  # few samples for the tokens, and many, which are treated otherwise
def test_gradients_do_not_depend_on_which_others_are_needed(
    device: str, form: str, reference_width: int, queries: int
) -> None:
    for dtype in TOLERANCE:
        for width in (5, 32):
            sizes = {"width": width, "queries": queries}
            problem = random_problem(form, reference_width, device=device, dtype=dtype, **sizes)
            for leaves in some_leaves(form):
                check_equal(problem.with_leaves(leaves), form)


@on_devices
@in_forms
def test_gradients_that_are_not_needed_are_not_computed(device: str, form: str, reference_width: int) -> None:
    problem = random_problem(form, reference_width, device=device, dtype=torch.float32)
    name = "ms_deform_attn_backward" if form == "plain" else "ms_deform_attn_fused_backward"
    for leaves in some_leaves(form):
        with Results(name) as seen:
            problem.with_leaves(leaves).run(FUNCTIONS[form][0])
        (gradients,) = seen.results
        places = (0, 2, 3, 4)[: len(gradients)]
        assert [len(gradient) > 0 for gradient in gradients] == [place in leaves for place in places]


class Results(TorchDispatchMode):
    """What an operator of the package returns each time that it is called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = f"hdetr_d2::{name}"
        self.results: list[tuple[Tensor, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name == self.name:
            self.results.append(result)
        return result


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@in_forms
def test_spatial_shapes_may_be_on_either_device(form: str, reference_width: int) -> None:
    value, shapes, *rest = random_problem(form, reference_width, device="cuda", dtype=torch.float32).arguments
    function = FUNCTIONS[form][0]
    assert torch.equal(function(value, shapes, *rest), function(value, shapes.cuda(), *rest))
    # The host cannot refuse levels that do not fit without waiting: they read as empty, and nothing out of bounds
    function(value, (shapes * 1000).cuda(), *rest).sum().backward()
    torch.cuda.synchronize()

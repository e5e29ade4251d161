"""The CUDA kernels' source, compiled for the CPU with a fibre a lane, against the CPU kernels.

No proof that they run on a GPU, but mistakes in arithmetic, indices, alignment, shuffle masks or atomics show on any
machine: the emulator (csrc/tests/cuda_on_cpu) refuses what is undefined on a GPU and may seem to work there.
"""

import ctypes
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hdetr_d2.ops import ms_deform_attn, ms_deform_attn_fused
from tests.ops.emulation import CSRC, compile_files, compile_for_cpu, fenced, fences_of
from tests.ops.problems import FORMS, Problem, random_problem, some_leaves

KERNELS = CSRC / "ms_deform_attn" / "cuda"
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # cuda::Type
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as they are for sm_90."""
    return compile_kernels(tmp_path_factory.mktemp("sm_90"), 900)


def compile_kernels(folder: Path, architecture: int) -> ctypes.CDLL:
    """The launchers of forward.cu, backward.cu and gather.cu in a shared object."""
    library = compile_for_cpu(KERNELS, "entry", folder, f"-D__CUDA_ARCH__={architecture}")
    library.run_kernel.restype = ctypes.c_char_p
    return library


def run_emulated(
    library: ctypes.CDLL, problem: Problem, shapes_on_device: bool, *, ordered: bool = False
) -> list[Tensor]:
    """What :meth:`Problem.run` returns, from the CUDA kernels. Memory they must write is NaN before.

    Of arguments that do not require a gradient none is computed.

    With ``ordered`` the gradient of value is gathered without atomics, as ``torch.use_deterministic_algorithms`` asks.
    """
    value, _, positions, attention, *rest = (fenced(t) if t.is_floating_point() else t for t in problem.arguments)
    reference = rest[0] if rest else None
    shapes = problem.arguments[1]
    batch, tokens, heads, width = value.shape
    queries, levels, points = positions.shape[1], positions.shape[3], positions.shape[4]
    output = fenced(torch.full((batch, queries, heads * width), torch.nan, dtype=value.dtype))
    gradients = [
        fenced(torch.zeros_like(value, dtype=positions.dtype)),
        fenced(torch.full_like(positions, torch.nan)),
        fenced(torch.full_like(attention, torch.nan)),
    ]
    if reference is not None:
        gradients.append(fenced(reference.new_full((batch, heads, *reference.shape[1:]), torch.nan)))
    coordinates = 0 if reference is None else reference.shape[-1]
    sizes = (ctypes.c_int64 * 8)(batch, tokens, heads, width, queries, levels, points, coordinates)
    numbers = (ctypes.c_int64 * (2 * levels))(*shapes.flatten().tolist())

    def call(what: int, *tensors: Tensor | None) -> None:
        inputs = [value, positions, attention, reference]
        addresses = [None if tensor is None else tensor.data_ptr() for tensor in [*inputs, *tensors]]
        pointers = (ctypes.c_void_p * 9)(*addresses, *[None] * (9 - len(addresses)))
        violation = library.run_kernel(sizes, numbers, shapes_on_device, pointers, TYPES[value.dtype], what)
        assert violation is None, violation.decode()

    floats = [tensor for tensor in problem.arguments if tensor.is_floating_point()]
    needed = [tensor.requires_grad for tensor in floats]
    wanted = [gradient if needs else None for gradient, needs in zip(gradients, needed)]
    grad_output = fenced(random_grad(output))
    call(0, output)
    if ordered:
        gradients[0] = fenced(torch.full_like(value, torch.nan))
        cells, factors = torch.empty(attention.numel(), dtype=torch.int32), positions.new_empty(attention.numel(), 4)
        call(1, grad_output, None, *wanted[1:])
        call(2, cells, factors)
        by_cell, order = cells.sort(stable=True)
        count = batch * heads * 2 * (tokens + levels)
        starts = torch.searchsorted(by_cell, torch.arange(count + 1, dtype=torch.int32), out_int32=True)
        call(3, grad_output, order, starts, factors, gradients[0])
    else:
        call(1, grad_output, *wanted)
    assert all(fences_of(written).isnan().all() for written in [output, *gradients])
    gradients[0] = gradients[0].to(value.dtype)
    results = [*gradients[:3], *(gradient.sum(1) for gradient in gradients[3:])]
    return [output, *(result for result, needs in zip(results, needed) if needs)]


def random_grad(output: Tensor) -> Tensor:
    """The gradient of the output that :meth:`Problem.run` uses."""
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(output)


def check_equal(library: ctypes.CDLL, form: str, problem: Problem, shapes_on_device: bool = False) -> None:
    """Output and gradients of the CUDA kernels, and the gathered gradient of value, are those of the CPU kernels."""
    expected = problem.run(ms_deform_attn if form == "plain" else ms_deform_attn_fused)
    tolerance = TOLERANCE[problem.arguments[0].dtype]
    computed = run_emulated(library, problem, shapes_on_device)
    pairs = list(zip(computed, expected, strict=True))
    if problem.arguments[0].requires_grad:
        gathered = run_emulated(library, problem, shapes_on_device, ordered=True)
        pairs += zip(gathered, expected, strict=True)
    for ours, theirs in pairs:
        assert float((ours - theirs).abs().max()) <= tolerance * max(float(theirs.abs().max()), 1e-3)


@pytest.mark.parametrize(("form", "reference_width"), FORMS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("width", [1, 2, 16, 17, 32, 64, 96])
def test_at_any_head_width(
    library: ctypes.CDLL, form: str, reference_width: int, dtype: torch.dtype, width: int
) -> None:
    sizes = {"queries": 3, "points": 2, "shapes": ((6, 7), (3, 4))}
    check_equal(library, form, random_problem(form, reference_width, dtype=dtype, width=width, **sizes))


@pytest.mark.parametrize(("form", "reference_width"), FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [16, 20, 64])
def test_with_groups_beyond_the_last_query(
    library: ctypes.CDLL, form: str, reference_width: int, dtype: torch.dtype, width: int
) -> None:
    """Warps and blocks that are full, and that are not: a block has 8 to 128 queries."""
    for queries in (1, 33, 65, 129):
        sizes = {"queries": queries, "points": 1, "heads": 2, "batch": 1, "shapes": ((5, 4), (2, 3))}
        check_equal(library, form, random_problem(form, reference_width, dtype=dtype, width=width, **sizes))


@pytest.mark.parametrize(("form", "reference_width"), FORMS)
@pytest.mark.parametrize(("width", "shapes_on_device"), [(16, False), (32, True), (64, False)])
def test_with_any_levels_points_and_heads(
    library: ctypes.CDLL, form: str, reference_width: int, width: int, shapes_on_device: bool
) -> None:
    for points in (1, 3, 4, 13):  # fewer than lanes of a group, as many, and more
        sizes = {"queries": 7, "points": points, "heads": 3, "shapes": ((5, 4), (2, 3), (1, 1))}
        problem = random_problem(form, reference_width, dtype=torch.float32, width=width, **sizes)
        check_equal(library, form, problem, shapes_on_device)
    for shapes in (((1, 50), (50, 1), (1, 1), (7, 7)), ((4, 4), (0, 5), (2, 3)), ((9, 8),)):
        problem = random_problem(form, reference_width, dtype=torch.float32, width=width, heads=3, shapes=shapes)
        check_equal(library, form, problem, shapes_on_device)


@pytest.mark.parametrize(("form", "reference_width"), FORMS)
@pytest.mark.parametrize("width", [5, 32])
def test_gradients_that_are_not_needed_are_not_written(
    library: ctypes.CDLL, form: str, reference_width: int, width: int
) -> None:
    problem = random_problem(form, reference_width, dtype=torch.float32, width=width, queries=3, points=5)
    for leaves in some_leaves(form):
        check_equal(library, form, problem.with_leaves(leaves))


@pytest.mark.parametrize(("form", "reference_width"), FORMS)
def test_with_more_levels_than_fit_into_the_arguments(library: ctypes.CDLL, form: str, reference_width: int) -> None:
    sizes = {"shapes": ((2, 2),) * 20, "points": 2, "queries": 11}
    check_equal(library, form, random_problem(form, reference_width, dtype=torch.float32, **sizes), True)


def test_architectures_without_vector_atomics(tmp_path: Path) -> None:
    library = compile_kernels(tmp_path, 800)
    for form, reference_width in FORMS:
        for dtype in TYPES:
            for width in (5, 32):
                check_equal(library, form, random_problem(form, reference_width, dtype=dtype, width=width, queries=3))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3.0])
def test_a_location_that_is_not_finite_or_far_outside_reads_zeros(library: ctypes.CDLL, number: float) -> None:
    for width in (5, 32):
        value, shapes, locations, weights = random_problem(dtype=torch.float32, width=width).arguments
        locations = locations.detach().clone()
        locations[:, 1, :, :, 0, 0] = number
        locations[:, 2, :, 1, :, 1] = number
        check_equal(library, "plain", Problem((value, shapes, locations.requires_grad_(), weights)))


def test_levels_on_the_device_that_do_not_fit_read_as_empty(library: ctypes.CDLL) -> None:
    """The host cannot check them without waiting for the device; the kernels must not read out of bounds."""
    value, _, locations, weights = random_problem(dtype=torch.float32, queries=2).arguments
    for shapes in ([[6, 7], [30, 40], [1, 2]], [[-6, 7], [2**40, 2**40], [7, 9]]):
        problem = Problem((value, torch.tensor(shapes), locations, weights))
        for ordered in (False, True):
            output, *gradients = run_emulated(library, problem, True, ordered=ordered)
            assert output.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in gradients)
            assert not gradients[1][:, :, :, 1].any()


WRONG_KERNELS = {
    "a lane of the mask has left the kernel": "if (threadIdx.x % 32 == 5) return; __shfl_xor_sync(~0u, 1, 1);",
    "the lane is not in its own mask": "__shfl_xor_sync(0xfffffffeu, 1.f, 2);",
    "it reads from a lane that is not in the mask": "__shfl_xor_sync(0xffu << threadIdx.x / 8 % 4 * 8, 1.f, 8);",
    "a lane of the mask waits with another mask": "__syncwarp(threadIdx.x % 32 < 16 ? 0xffffffffu : 0xffff0001u);",
    "is at another operation": "threadIdx.x % 2 ? __syncwarp(~0u) : (void)__shfl_sync(~0u, 1, 0, 32);",
}


def test_the_emulator_refuses_what_is_undefined_on_a_gpu(tmp_path: Path) -> None:
    source = tmp_path / "wrong.cpp"
    kernels = "".join(
        f"  if (index == {i}) launch(1, 256, [] {{ {body} }});\n" for i, body in enumerate(WRONG_KERNELS.values())
    )
    source.write_text(
        '#include "emulator.h"\nusing emulator::launch;\nextern "C" const char* run_wrong(int index) {\n'
        f"  emulator::violation[0] = 0;\n{kernels}  return emulator::violation;\n}}\n"
    )
    library = compile_files([source], tmp_path)
    library.run_wrong.restype = ctypes.c_char_p
    for index, reason in enumerate(WRONG_KERNELS):
        assert reason in library.run_wrong(index).decode()
    assert library.run_wrong(len(WRONG_KERNELS)) == b""

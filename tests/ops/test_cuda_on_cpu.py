"""The CUDA kernels' source, compiled for the CPU with one thread a lane, against the CPU kernels.

No proof that they run on a GPU, but mistakes in arithmetic, indices, shuffle masks or atomics show on any machine.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hdetr_d2.ops import ms_deform_attn, ms_deform_attn_fused
from tests.ops.problems import FORMS, Problem, random_problem

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc" / "ms_deform_attn" / "cuda"
EMULATOR = ROOT / "csrc" / "tests" / "cuda_on_cpu"
LAUNCH = re.compile(r"(\w+_kernel<[^;<>]*>)\s*<<<(.*?),\s*kThreads,\s*0,\s*stream>>>\((.*?)\);", re.DOTALL)
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # cuda::Type
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The launchers of forward.cu and backward.cu as they are for sm_90, in a shared object."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    sources = [EMULATOR / "entry.cpp"]
    for name in ("forward", "backward"):
        launched, count = LAUNCH.subn(
            r"emulator::launch(\2, [=, *this] { \1(\3); });", (KERNELS / f"{name}.cu").read_text()
        )
        assert count == 1
        sources.append(folder / f"{name}.cpp")
        sources[-1].write_text(launched)
    flags = ["-std=c++20", "-O1", "-w", "-fPIC", "-shared", "-pthread", "-D__CUDA_ARCH__=900", f"-I{EMULATOR}"]
    result = subprocess.run(
        [compiler, *flags, f"-I{KERNELS}", *map(str, sources), "-o", str(folder / "kernels.so")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return ctypes.CDLL(str(folder / "kernels.so"))


def run_emulated(library: ctypes.CDLL, problem: Problem, shapes_on_device: bool) -> list[Tensor]:
    """What :meth:`Problem.run` returns, from the CUDA kernels. Memory they must write is NaN before."""
    value, shapes, positions, attention, *rest = (tensor.detach().contiguous() for tensor in problem.arguments)
    reference = rest[0] if rest else None
    batch, tokens, heads, width = value.shape
    queries, levels, points = positions.shape[1], positions.shape[3], positions.shape[4]
    output = torch.full((batch, queries, heads * width), torch.nan, dtype=value.dtype)
    gradients = [
        torch.zeros_like(value, dtype=positions.dtype),
        torch.full_like(positions, torch.nan),
        torch.full_like(attention, torch.nan),
    ]
    if reference is not None:
        gradients.append(reference.new_full((batch, heads, *reference.shape[1:]), torch.nan))
    coordinates = 0 if reference is None else reference.shape[-1]
    sizes = (ctypes.c_int64 * 8)(batch, tokens, heads, width, queries, levels, points, coordinates)
    numbers = (ctypes.c_int64 * (2 * levels))(*shapes.flatten().tolist())

    def call(tensors: list[Tensor], backward: bool) -> None:
        inputs = [value, positions, attention, reference]
        addresses = [None if tensor is None else tensor.data_ptr() for tensor in [*inputs, *tensors]]
        pointers = (ctypes.c_void_p * 9)(*addresses, *[None] * (9 - len(addresses)))
        library.run_kernel(sizes, numbers, shapes_on_device, pointers, TYPES[value.dtype], backward)

    call([output], False)
    call([random_grad(output), *gradients], True)
    gradients[0] = gradients[0].to(value.dtype)
    return [output, *gradients[:3], *(gradient.sum(1) for gradient in gradients[3:])]


def random_grad(output: Tensor) -> Tensor:
    """The gradient of the output that :meth:`Problem.run` uses."""
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(output)


@pytest.mark.parametrize(("form", "reference_width"), FORMS)
@pytest.mark.parametrize(
    ("dtype", "width", "shapes_on_device"),
    [
        (torch.float32, 32, False),
        (torch.float32, 64, True),
        (torch.float32, 16, False),
        (torch.float32, 5, True),
        (torch.float64, 40, False),
        (torch.float16, 32, True),
        (torch.bfloat16, 16, False),
        (torch.bfloat16, 64, False),
    ],
    ids=str,
)
def test_cuda_kernels_equal_the_cpu_kernels(
    library: ctypes.CDLL, form: str, reference_width: int, dtype: torch.dtype, width: int, shapes_on_device: bool
) -> None:
    sizes = {"queries": 3, "points": 2, "shapes": ((6, 7), (3, 4))}  # every exchange between lanes costs milliseconds
    problem = random_problem(form, reference_width, dtype=dtype, width=width, **sizes)
    expected = problem.run(ms_deform_attn if form == "plain" else ms_deform_attn_fused)
    for ours, theirs in zip(run_emulated(library, problem, shapes_on_device), expected):
        assert float((ours - theirs).abs().max()) <= TOLERANCE[dtype] * float(theirs.abs().max())


def test_levels_on_the_device_that_do_not_fit_read_as_empty(library: ctypes.CDLL) -> None:
    """The host cannot check them without waiting for the device; the kernels must not read out of bounds."""
    value, _, locations, weights = random_problem(dtype=torch.float32, queries=2).arguments
    for shapes in ([[6, 7], [30, 40], [1, 2]], [[-6, 7], [2**40, 2**40], [7, 9]]):
        output, *gradients = run_emulated(library, Problem((value, torch.tensor(shapes), locations, weights)), True)
        assert output.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert not gradients[1][:, :, :, 1].any()

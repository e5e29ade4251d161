"""CUDA kernels as a shared object for the CPU: what they launch runs as csrc/tests/cuda_on_cpu/emulator.h says."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

CSRC = Path(__file__).parents[2] / "csrc"
EMULATOR = CSRC / "tests" / "cuda_on_cpu"
LAUNCH = re.compile(r"(\w+_kernel(?:<[^;<>]*>)?)\s*<<<(.*?),\s*(\w+),\s*0,\s*stream>>>\((.*?)\);", re.DOTALL)


def compile_for_cpu(kernels: Path, entry: str, folder: Path, *flags: str) -> ctypes.CDLL:
    """The launchers of a folder's CUDA files, and the function of the emulator's folder that calls them.

    Args:
        kernels: the folder.
        entry: name of the file with that function.
        folder: where to put what is made.
        flags: of the compiler.
    """
    sources = [EMULATOR / f"{entry}.cpp"]
    for file in sorted(kernels.glob("*.cu")):
        launched, count = LAUNCH.subn(r"emulator::launch(\2, \3, [&] { \1(\4); });", file.read_text())
        assert count >= 1
        sources.append(folder / f"{file.stem}.cpp")
        sources[-1].write_text(launched)
    return compile_files(sources, folder, f"-I{kernels}", *flags)


def compile_files(sources: list[Path], folder: Path, *flags: str) -> ctypes.CDLL:
    """A shared object of kernels, which ends the process where they read from a misaligned address."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    flags = ("-std=c++20", "-O1", "-ffp-contract=off", "-w", "-fPIC", "-shared", f"-I{EMULATOR}", *flags)
    strict = ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")
    command = [compiler, *flags, *strict, *map(str, sources), "-o", str(folder / "kernels.so")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return ctypes.CDLL(str(folder / "kernels.so"))


def fenced(tensor: Tensor) -> Tensor:
    """A copy in the middle of NaN, so that a kernel that reads beyond it gives NaN. Aligned to 16 bytes."""
    fence = torch.full((64 // tensor.element_size(),), torch.nan, dtype=tensor.dtype)
    return torch.cat([fence, tensor.detach().flatten(), fence])[len(fence) : -len(fence)].view(tensor.shape)


def fences_of(tensor: Tensor) -> Tensor:
    """What is around a tensor of :func:`fenced`, NaN if no kernel wrote beyond it."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    whole = tensor.as_strided((size,), (1,), 0)
    return torch.cat([whole[: tensor.storage_offset()], whole[tensor.storage_offset() + tensor.numel() :]])

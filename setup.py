"""Builds the native operators. Everything else about the package is in pyproject.toml.

Switches, all environment variables:
    HDETR_D2_NO_EXTENSION=1       builds nothing
    HDETR_D2_REQUIRE_EXTENSION=1  a failed build is an error, not a warning
    HDETR_D2_NO_CUDA=1            builds the CPU kernels only
    FORCE_CUDA=1                  builds the CUDA kernels on a machine without a GPU; fails if it cannot
    TORCH_CUDA_ARCH_LIST          for which GPUs, as everywhere in PyTorch; setting it implies that CUDA is wanted
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
PACKAGE = "hdetr_d2.ops"
# Each is a folder of csrc/ with schema and checks, and kernels in `cpu` and `cuda` inside it. A new part is added here.
PARTS = ["ms_deform_attn", "matching", "nms"]
CUDA_ARCHITECTURES = [70, 75, 80, 86, 89, 90, 100, 120]
# Loops with a floor or a comparison of floats vectorise only where traps and errno do not matter.
CXX_FLAGS = ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-Wall"]
CXX_FLAGS += ["-Wno-unknown-pragmas"]  # what one compiler unrolls by, another does not know
SWITCH_ON = {"1", "on", "true", "yes"}


def switch(name: str) -> bool:
    return os.environ.get(name, "").lower() in SWITCH_ON


def sources(extension: str, *, folder: str = "") -> list[str]:
    """Source files of all parts, relative to the repository, from each part's folder or the given one inside it."""
    folders = [ROOT / "csrc" / part / folder for part in PARTS]
    return [str(path.relative_to(ROOT)) for folder_ in folders for path in sorted(folder_.glob(f"*.{extension}"))]


def nvcc_architectures(nvcc: Path) -> str:
    """The architectures built for if neither a GPU nor the user says which: what this nvcc knows, and PTX for newer."""
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    wanted = [f"{number // 10}.{number % 10}" for number in CUDA_ARCHITECTURES if f"compute_{number}\n" in known]
    return ";".join(wanted) + "+PTX"


def find_cuda() -> Path | None:
    """The CUDA toolkit: torch's guess if it holds the headers, else where nvcc (a wrapper, maybe) says it is."""
    from torch.utils import cpp_extension

    guess = cpp_extension.CUDA_HOME
    if guess and (Path(guess) / "include" / "cuda_runtime.h").exists() and (Path(guess) / "bin" / "nvcc").exists():
        return Path(guess)
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
    home = Path(top.group(1).strip()).resolve() if top else None
    return home if home and (home / "include" / "cuda_runtime.h").exists() else None


def why_no_cuda() -> str | None:
    """Why the CUDA kernels are not built here, or None if they are. Raises if FORCE_CUDA asks for what cannot be."""
    import torch

    if switch("HDETR_D2_NO_CUDA"):
        return "HDETR_D2_NO_CUDA was set when it was built"
    reason = None
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} has no CUDA"
    elif find_cuda() is None:
        reason = f"no CUDA toolkit was found when it was built; install nvcc {torch.version.cuda} and set CUDA_HOME"
    if reason and switch("FORCE_CUDA"):
        raise RuntimeError(f"FORCE_CUDA is set, but {reason}")
    if not (reason or torch.cuda.is_available() or switch("FORCE_CUDA") or os.environ.get("TORCH_CUDA_ARCH_LIST")):
        reason = "there was no GPU when it was built; FORCE_CUDA=1 builds for one elsewhere"
    return reason


def make_extension(cuda: bool) -> Extension:
    from torch.utils import cpp_extension

    flags = {"cxx": CXX_FLAGS}
    files = sources("cpp") + sources("cpp", folder="cpu")
    if cuda:
        import torch

        home = find_cuda()
        assert home is not None  # else there is no CUDA
        cpp_extension.CUDA_HOME = os.environ["CUDA_HOME"] = str(home)
        files += sources("cpp", folder="cuda") + sources("cu", folder="cuda")
        flags["nvcc"] = ["-std=c++17", "-O3", "--expt-relaxed-constexpr"]
        if not torch.cuda.is_available():
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", nvcc_architectures(home / "bin" / "nvcc"))
    kind: Any = cpp_extension.CUDAExtension if cuda else cpp_extension.CppExtension
    extension = kind(f"{PACKAGE}._C", files, extra_compile_args=flags, extra_link_args=["-s"], py_limited_api=True)
    # Nothing in it knows Python, so one file serves every Python version. Neither is OpenMP's runtime linked: the
    # calls bind to the runtime that torch brought, which is the only one torch.set_num_threads speaks to.
    extension.libraries = [library for library in extension.libraries if library != "torch_python"]
    return extension


class AnyPythonWheel(bdist_wheel):
    """One wheel a platform (and torch version) for every Python: the shared object does not know Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class NoExtension(build_ext):
    """Installs without native operators, and leaves a note for the warning that their absence causes."""

    reason = "HDETR_D2_NO_EXTENSION was set when it was installed"

    def run(self) -> None:
        write_note(self, {"error": self.reason})


def write_note(command: build_ext, note: dict[str, object]) -> None:
    """Write what hdetr_d2.ops tells users about this build beside the place of the shared object."""
    folder = (ROOT if command.inplace else Path(command.build_lib)) / PACKAGE.replace(".", "/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_build.json").write_text(json.dumps(note, indent=2) + "\n")


def make_command(no_cuda: str | None) -> type[build_ext]:
    import torch
    from torch.utils.cpp_extension import BuildExtension

    class BuildOperators(BuildExtension):
        """Builds the shared object; if that fails, installs without it unless CUDA was demanded."""

        def get_ext_filename(self, fullname: str) -> str:
            return os.path.join(*fullname.split(".")) + ".so"

        def run(self) -> None:
            cuda = None if no_cuda else torch.version.cuda
            note: dict[str, object] = {"torch": torch.__version__, "cuda": cuda, "why_no_cuda": no_cuda}
            try:
                super().run()
            except Exception as error:
                if switch("FORCE_CUDA") or switch("HDETR_D2_REQUIRE_EXTENSION"):
                    raise
                print(
                    f"hdetr_d2: no native operators, the slow PyTorch reference will be used: {error}", file=sys.stderr
                )
                note = {"error": f"the compiler failed when it was installed ({str(error).splitlines()[0]})"}
                self.extensions: list[Extension] = []  # nothing to copy
            write_note(self, note)

    return BuildOperators


def arguments() -> dict[str, object]:
    if switch("HDETR_D2_NO_EXTENSION"):
        return {
            "ext_modules": [Extension(f"{PACKAGE}._C", [])],
            "cmdclass": {"bdist_wheel": AnyPythonWheel, "build_ext": NoExtension},
        }
    try:
        no_cuda = why_no_cuda()
    except ImportError:
        NoExtension.reason = "torch could not be imported when it was installed; use pip install --no-build-isolation"
        return {
            "ext_modules": [Extension(f"{PACKAGE}._C", [])],
            "cmdclass": {"bdist_wheel": AnyPythonWheel, "build_ext": NoExtension},
        }
    if no_cuda:
        print(f"hdetr_d2: building without CUDA: {no_cuda}", file=sys.stderr)
    commands = {"bdist_wheel": AnyPythonWheel, "build_ext": make_command(no_cuda)}
    return {"ext_modules": [make_extension(cuda=no_cuda is None)], "cmdclass": commands}


def build_in_place() -> None:
    """Build the operators into the checkout, without reading pyproject.toml (benchmarks/gpu_check.sh)."""
    os.chdir(ROOT)
    command = Distribution({"name": "hdetr_d2", **arguments()}).get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(**arguments())

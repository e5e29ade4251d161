"""Builds the native operators. Everything else about the package is in pyproject.toml.

Switches, all environment variables: HDETR_D2_NO_EXTENSION=1 builds nothing, HDETR_D2_NO_CUDA=1 builds the CPU kernels only,
FORCE_CUDA=1 builds the CUDA kernels on a machine without a GPU (and fails if it cannot), TORCH_CUDA_ARCH_LIST says for which GPUs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
PACKAGE = "hdetr_d2.ops"
# Each is a folder of csrc/ with its schema and checks; `cpu` and `cuda` inside it hold the kernels. A new part is added here.
PARTS = ["ms_deform_attn"]
CUDA_ARCHITECTURES = [70, 75, 80, 86, 89, 90, 100, 120]
SWITCH_ON = {"1", "on", "true", "yes"}


def switch(name: str) -> bool:
    return os.environ.get(name, "").lower() in SWITCH_ON


def sources(extension: str, *, folder: str = "") -> list[str]:
    """Source files of all parts, relative to the repository, of the part's own folder or of its ``cpu`` or ``cuda`` folder."""
    return [str(path.relative_to(ROOT)) for part in PARTS for path in sorted((ROOT / "csrc" / part / folder).glob(f"*.{extension}"))]


def nvcc_architectures(nvcc: Path) -> str:
    """The architectures built for when neither a GPU nor the user says which: what this nvcc knows of a list, and PTX for newer."""
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    wanted = [f"{number // 10}.{number % 10}" for number in CUDA_ARCHITECTURES if f"compute_{number}\n" in known]
    return ";".join(wanted) + "+PTX"


def why_no_cuda() -> str | None:
    """Why the CUDA kernels are not built here, or None if they are."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if switch("HDETR_D2_NO_CUDA"):
        return "HDETR_D2_NO_CUDA was set when it was built"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA"
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        return f"no nvcc was found when it was built (CUDA_HOME={CUDA_HOME}); install the CUDA toolkit {torch.version.cuda}"
    if not (torch.cuda.is_available() or switch("FORCE_CUDA") or os.environ.get("TORCH_CUDA_ARCH_LIST")):
        return "there was no GPU when it was built; FORCE_CUDA=1 builds for one elsewhere"
    return None


def make_extension(cuda: bool) -> Extension:
    from torch.utils.cpp_extension import CUDA_HOME, CppExtension, CUDAExtension

    flags = {"cxx": ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-Wall", "-Wno-unknown-pragmas"]}
    files = sources("cpp") + sources("cpp", folder="cpu")
    if cuda:
        import torch

        files += sources("cpp", folder="cuda") + sources("cu", folder="cuda")
        flags["nvcc"] = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "--threads", "2"]
        if not torch.cuda.is_available():
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", nvcc_architectures(Path(CUDA_HOME) / "bin" / "nvcc"))
    kind = CUDAExtension if cuda else CppExtension
    extension = kind(f"{PACKAGE}._C", files, extra_compile_args=flags, extra_link_args=["-s"], py_limited_api=True)
    # Nothing in it knows Python, so one file serves every Python version. Neither is OpenMP's runtime linked: the
    # calls bind to the runtime that torch brought, which is the only one torch.set_num_threads speaks to.
    extension.libraries = [library for library in extension.libraries if library != "torch_python"]
    return extension


class NoExtension(build_ext):
    """Installs without native operators, and leaves a note for the warning that their absence causes."""

    reason = "HDETR_D2_NO_EXTENSION was set when it was installed"

    def run(self) -> None:
        write_note(self, {"error": self.reason})


def write_note(command: build_ext, note: dict[str, object]) -> None:
    """Write what hdetr_d2.ops tells users about this build beside the place of the shared object."""
    folder = ROOT / PACKAGE.replace(".", "/") if command.inplace else Path(command.build_lib) / PACKAGE.replace(".", "/")
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
            note: dict[str, object] = {"torch": torch.__version__, "cuda": None if no_cuda else torch.version.cuda, "why_no_cuda": no_cuda}
            try:
                super().run()
            except Exception as error:
                if switch("FORCE_CUDA") or switch("HDETR_D2_REQUIRE_EXTENSION"):
                    raise
                print(f"hdetr_d2: the native operators did not build, the slow PyTorch reference will be used: {error}", file=sys.stderr)
                note = {"error": f"the compiler failed when it was installed ({str(error).splitlines()[0]})"}
                self.extensions = []  # nothing to copy
            write_note(self, note)

    return BuildOperators


def arguments() -> dict[str, object]:
    if switch("HDETR_D2_NO_EXTENSION"):
        return {"ext_modules": [Extension(f"{PACKAGE}._C", [])], "cmdclass": {"build_ext": NoExtension}}
    try:
        no_cuda = why_no_cuda()
    except ImportError:
        NoExtension.reason = "torch could not be imported when it was installed; use pip install --no-build-isolation"
        return {"ext_modules": [Extension(f"{PACKAGE}._C", [])], "cmdclass": {"build_ext": NoExtension}}
    if no_cuda:
        print(f"hdetr_d2: building without CUDA: {no_cuda}", file=sys.stderr)
    return {"ext_modules": [make_extension(cuda=no_cuda is None)], "cmdclass": {"build_ext": make_command(no_cuda)}}


def build_in_place() -> None:
    """Build the operators into the checkout without installing anything, or reading pyproject.toml (benchmarks/gpu_check.sh)."""
    os.chdir(ROOT)
    command = Distribution({"name": "hdetr_d2", **arguments()}).get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(**arguments())

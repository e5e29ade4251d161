"""Finding and loading the compiled operators, and saying why not where they are missing."""

import json
import warnings
from pathlib import Path

import torch

__all__ = ["KERNELS", "WHY_NOT", "warn_about_reference"]

_FOLDER = Path(__file__).parent
_REBUILD = "run `pip install --no-build-isolation -e .` in the checkout (it needs a C++ compiler)"


def warn_about_reference(device_type: str) -> None:
    """Say, once a device type, that the slow PyTorch reference runs there instead of a kernel, why, and what to do."""
    if device_type in _WARNED:
        return
    _WARNED.add(device_type)
    why_no_cuda = _NOTE.get("why_no_cuda")
    if WHY_NOT is not None:
        reason = WHY_NOT
    elif device_type == "cuda" and why_no_cuda:
        reason = f"{why_no_cuda}; {_REBUILD}"
    else:
        reason = f"there is no kernel for {device_type} devices"
    warnings.warn(
        f"hdetr_d2: multi-scale deformable attention uses the slow PyTorch reference on {device_type}: {reason}",
        stacklevel=3,
    )


def _read_note() -> dict[str, object]:
    """What the build wrote about itself: torch and CUDA version, or the error it stopped with."""
    file = _FOLDER / "_build.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _load() -> str | None:
    """Load the shared object with the operators. Returns None, or why not and what to do about it."""
    if "error" in _NOTE:
        return f"{_NOTE['error']}; {_REBUILD}"
    library = _FOLDER / "_C.so"
    if not library.exists():
        return f"the operators were never built; {_REBUILD}"
    built_for = str(_NOTE.get("torch", "an unknown version"))
    # Patch releases keep PyTorch's C++ interface, minor ones do not; loading over that line can crash the process.
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        return f"the operators were built for torch {built_for}, and this is torch {torch.__version__}; {_REBUILD}"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        versions = f"built for torch {built_for}, this is torch {torch.__version__}"
        return f"{library.name} ({versions}) does not load: {error}; {_REBUILD}"
    return None


def _kernels() -> frozenset[str]:
    if WHY_NOT is not None:
        return frozenset()
    return frozenset({"cpu", "meta", "cuda"} if _NOTE.get("cuda") else {"cpu", "meta"})


_WARNED: set[str] = set()
_NOTE = _read_note()
WHY_NOT = _load()
"""None, or why the operators are not loaded and what to do about it."""
KERNELS = _kernels()
"""Types of devices with a kernel; on any other the PyTorch reference runs."""

"""Finding and loading the compiled operators, and saying why not where they are missing."""

import json
import warnings
from functools import cache
from pathlib import Path

import torch

__all__ = ["load", "warn_about_reference"]

_FOLDER = Path(__file__).parent
_REBUILD = "run `pip install --no-build-isolation -e .` in the checkout (it needs a C++ compiler)"


@cache
def load() -> str | None:
    """Load the shared object with the operators; a second call does nothing.

    Returns:
        None, or why it was not loaded and what to do about it.
    """
    note = _build_note()
    if "error" in note:
        return f"{note['error']}; {_REBUILD}"
    library = _FOLDER / "_C.so"
    if not library.exists():
        return f"the operators were never built; {_REBUILD}"
    built_for = str(note.get("torch", "unknown"))
    # Patch releases keep PyTorch's C++ interface, minor ones do not; loading over that line can crash the process.
    if _minor(built_for) != _minor(torch.__version__):
        return f"the operators were built for torch {built_for}, and this is torch {torch.__version__}; {_REBUILD}"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        versions = f"built for torch {built_for}, this is torch {torch.__version__}"
        return f"{library.name} ({versions}) does not load: {error}; {_REBUILD}"
    return None


@cache
def warn_about_reference(device_type: str) -> None:
    """Say, once a device type, that the slow PyTorch reference runs there instead of a kernel, why, and what to do."""
    reason = load()
    if reason is None:
        why_no_cuda = _build_note().get("why_no_cuda")
        if device_type == "cuda" and why_no_cuda:
            reason = f"{why_no_cuda}; then {_REBUILD}"
        else:
            reason = f"there is no kernel for {device_type} devices"
    warnings.warn(
        f"hdetr_d2: multi-scale deformable attention uses the slow PyTorch reference on {device_type}: {reason}",
        stacklevel=3,
    )


def _build_note() -> dict[str, object]:
    """What the build wrote about itself: torch and CUDA version, or the error it stopped with."""
    file = _FOLDER / "_build.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])

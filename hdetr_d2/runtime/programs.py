"""What runs a graph: onnxruntime, openvino or, if it is there, PyTorch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdetr_d2.arguments import check_whole, check_within
from hdetr_d2.images import irregular

from .metadata import KEY, RuntimeModelError

INPUTS = ("images",)
OUTPUTS = ("scores", "labels", "boxes")
MOST_THREADS = 1024
"""More are a mistake: each takes memory, whether it has work or not."""


@dataclass(frozen=True)
class Program:
    """A graph that is ready to run.

    Args:
        run: images (B, 3, H, W) float32 to the `OUTPUTS`.
        properties: what the file says of itself, by key.
    """

    run: Callable[[npt.NDArray[np.float32]], tuple[npt.NDArray[Any], ...]]
    properties: Mapping[str, str]


def open_program(path: str | os.PathLike[str], *, runtime: str | None = None, threads: int | None = None) -> Program:
    """Load a graph.

    Args:
        path: of an .onnx, of OpenVINO's .xml, or of a .pt2 of torch.export.
        runtime: ``"onnxruntime"``; ``"openvino"``, which runs its own files and ONNX; ``"torch"`` for a .pt2 that you
            trust, since loading one may run what is in it. None is onnxruntime, and openvino for its own files.
        threads: that compute, at most `MOST_THREADS`; None is what the runtime takes.

    Raises:
        RuntimeModelError: there is no such file or runtime, or the file is none of its graphs. ``run`` raises it for
            images that the graph does not take.
        ArgumentError: of ``threads``.
    """
    name = os.fsdecode(path)
    ending = os.path.splitext(name)[1].lower()
    if runtime is None and ending == ".pt2":
        raise RuntimeModelError(f'{name}: loading it may run what is in it; if you trust it, say runtime="torch"')
    runtime = RUNTIMES.get(ending, "onnxruntime") if runtime is None else runtime
    if runtime not in list(_PROGRAMS):
        raise RuntimeModelError(f'runtime "{runtime}": there is {", ".join(_PROGRAMS)}')
    if threads is not None:
        check_whole("RuntimeDetector", 1, threads=threads)
        check_within("RuntimeDetector", 1, MOST_THREADS, threads=threads)
    _require_file(name)
    try:
        program = _PROGRAMS[runtime](name, threads)
    except ImportError as error:
        raise RuntimeModelError(f"{name} is run by {runtime}, which is not installed: pip install {runtime}") from error

    def run(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        try:
            return program.run(images)
        except Exception as error:  # the runtimes' errors have no common class
            what = f"images {tuple(images.shape)} of {images.dtype}"
            raise RuntimeModelError(f"{name}: cannot be run on {what}: {_first_line(error)}") from error

    return Program(run, program.properties)


def _require_file(name: str) -> None:
    try:
        kind = irregular(name)
    except (OSError, ValueError) as error:
        raise RuntimeModelError(f"{name}: there is no such file; hdetr-d2 export writes one") from error
    if kind is not None:
        raise RuntimeModelError(f"{name}: is {kind}; name the file that hdetr-d2 export wrote")
    if not os.access(name, os.R_OK):
        raise RuntimeModelError(f"{name}: may not be read; change its permissions")


def _onnxruntime(path: str, threads: int | None) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise _unreadable(path, error) from error

    def run(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        return tuple(session.run(list(OUTPUTS), {"images": images}))

    _require_names(
        path, [each.name for each in session.get_inputs()], [output.name for output in session.get_outputs()]
    )
    return Program(run, session.get_modelmeta().custom_metadata_map)


def _openvino(path: str, threads: int | None) -> Program:
    import openvino

    core = openvino.Core()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # or it takes bfloat16 where the CPU has it
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", options)
    except Exception as error:  # its errors are RuntimeErrors of C++
        raise _unreadable(path, error) from error
    inputs, outputs = ([name for each in side for name in each.get_names()] for side in (model.inputs, model.outputs))
    _require_names(path, inputs, outputs)

    def run(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        found = compiled({"images": images})
        return tuple(np.array(found[name]) for name in OUTPUTS)

    place = ["framework", KEY]
    return Program(run, {KEY: model.get_rt_info(place).value} if model.has_rt_info(place) else {})


def _torch(path: str, threads: int | None) -> Program:
    import torch

    import hdetr_d2.ops  # noqa: F401  # registers the operators that programs have

    if threads is not None:
        torch.set_num_threads(threads)
    about = {KEY: ""}
    try:
        with warnings.catch_warnings():  # of its own reading of buffers
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            module = torch.export.load(path, extra_files=about).module()
    except Exception as error:  # zip files', pickles' and its own errors have no common class
        raise _unreadable(path, error) from error

    def run(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        with torch.no_grad():
            return tuple(output.numpy() for output in module(torch.from_numpy(images)))

    return Program(run, {key: text for key, text in about.items() if text})


_PROGRAMS: Mapping[str, Callable[[str, int | None], Program]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
RUNTIMES: Mapping[str, str] = {".onnx": "onnxruntime", ".xml": "openvino"}
"""What runs a file that is not trusted, by the ending of its name."""


def _require_names(path: str, inputs: list[str], outputs: list[str]) -> None:
    if not set(OUTPUTS) <= set(outputs):
        raise RuntimeModelError(f"{path}: gives {', '.join(outputs)} and not {', '.join(OUTPUTS)}; use hdetr-d2 export")
    if set(inputs) != set(INPUTS):
        raise RuntimeModelError(f"{path}: takes {', '.join(inputs)} and not {', '.join(INPUTS)}; use hdetr-d2 export")


def _unreadable(path: str, error: Exception) -> RuntimeModelError:
    return RuntimeModelError(f"{path}: cannot be read: {_first_line(error)}; write it again with hdetr-d2 export")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".; ")

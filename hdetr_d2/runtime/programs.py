"""What runs a graph: onnxruntime, or openvino."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .metadata import KEY, RuntimeModelError

OUTPUTS = ("scores", "labels", "boxes")


@dataclass(frozen=True)
class Program:
    """A graph that is ready to run.

    Args:
        run: images (B, 3, H, W) float32 to the `OUTPUTS`.
        properties: what the file says of itself, by key.
    """

    run: Callable[[npt.NDArray[np.float32]], tuple[npt.NDArray[Any], ...]]
    properties: Mapping[str, str]


def open_program(path: str | os.PathLike[str], *, runtime: str = "onnxruntime", threads: int | None = None) -> Program:
    """Load a graph.

    Args:
        path: of an ONNX file.
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        threads: that compute; None is what the runtime takes.

    Raises:
        RuntimeModelError: there is no such file or runtime, or the file is none of its graphs.
    """
    name = os.fspath(path)
    if runtime not in _PROGRAMS:
        raise RuntimeModelError(f'runtime "{runtime}": there is {" and ".join(_PROGRAMS)}')
    if not os.path.isfile(name):
        raise RuntimeModelError(f"{name}: there is no such file; hdetr-d2 export writes one")
    try:
        return _PROGRAMS[runtime](name, threads)
    except ImportError as error:
        raise RuntimeModelError(f"{name} is run by {runtime}, which is not installed: pip install {runtime}") from error


def _onnxruntime(path: str, threads: int | None) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise RuntimeModelError(f"{path}: cannot be read as ONNX: {_first_line(error)}") from error

    def run(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        return tuple(session.run(list(OUTPUTS), {"images": images}))

    _require_outputs(path, [output.name for output in session.get_outputs()])
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
        raise RuntimeModelError(f"{path}: openvino cannot read it: {_first_line(error)}") from error
    _require_outputs(path, [name for output in model.outputs for name in output.get_names()])

    def run(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        found = compiled({"images": images})
        return tuple(np.array(found[name]) for name in OUTPUTS)

    place = ["framework", KEY]
    return Program(run, {KEY: model.get_rt_info(place).value} if model.has_rt_info(place) else {})


_PROGRAMS: Mapping[str, Callable[[str, int | None], Program]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _require_outputs(path: str, names: list[str]) -> None:
    if not set(OUTPUTS) <= set(names):
        raise RuntimeModelError(f"{path}: gives {', '.join(names)} and not {', '.join(OUTPUTS)}; use hdetr-d2 export")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

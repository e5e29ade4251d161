"""What else than ONNX a model is written as: OpenVINO's files, and programs of torch.export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from hdetr_d2.modeling import DETR
from hdetr_d2.runtime.metadata import KEY, Metadata

from .onnx import TensorDetector, example_images, free_sizes

Format = Literal["onnx", "openvino", "torch"]
FORMATS: Mapping[str, Format] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
"""By the ending of a file's name."""


def runtime_of(path: Path) -> str | None:
    """What runs a file that was written here, and so is trusted; as `open_program` takes it."""
    return "torch" if FORMATS.get(path.suffix.lower()) == "torch" else None


def to_openvino(source: Path, path: Path) -> tuple[Path, ...]:
    """Write an ONNX file as OpenVINO's intermediate representation, in the same precision.

    Args:
        source: the ONNX file; its metadata goes along.
        path: of the new .xml.

    Returns:
        The files: the .xml, and the .bin of its weights beside it.
    """
    import openvino

    openvino.save_model(openvino.convert_model(str(source)), str(path), compress_to_fp16=False)
    return (path, path.with_suffix(".bin"))


def export_program(
    model: DETR, path: Path, metadata: Metadata, *, image_size: tuple[int, int], any_size: bool = False
) -> None:
    """Write a model as a program of ``torch.export``, which has our operators as they are.

    Args:
        model: in evaluation mode, in float32 on the CPU.
        path: of the .pt2.
        metadata: kept in the file under `KEY`.
        image_size, any_size: as of `export_onnx`.
    """
    shapes: dict[int, Any] = {0: torch.export.Dim("batch"), **(free_sizes() if any_size else {})}
    detector = TensorDetector(model=model).eval()
    with torch.no_grad():  # else the parts of the model that never have gradients would be graphs of their own
        program = torch.export.export(detector, (example_images(image_size),), dynamic_shapes=(shapes,))
    torch.export.save(program, path, extra_files={KEY: metadata.to_json()})

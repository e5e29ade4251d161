"""What an exported file says of itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hdetr_d2.description import ModelDescription
from hdetr_d2.runtime.metadata import KEY, Metadata

from .onnx import OPSET


def metadata_of(
    description: ModelDescription, *, size: tuple[int, int] | None = None, precision: str = "float32"
) -> Metadata:
    """What a runtime needs to know of a model.

    Args:
        description: of the model.
        size: (H, W) of the graph's images; None where it takes any.
        precision: of the graph.
    """
    resize: dict[str, Any] = dict(description.resize)
    if size is not None:
        resize = {"rule": "fixed", "height": size[0], "width": size[1]}
    count = len(description.class_names)
    return Metadata(
        class_names=description.class_names,
        category_ids=description.category_ids,
        score_thresholds=description.score_thresholds or (description.score_threshold,) * count,
        num_detections=description.num_detections,
        channel_order=description.channel_order,
        input_range=description.input_range,
        pixel_mean=description.pixel_mean,
        pixel_std=description.pixel_std,
        resize=resize,
        precision=precision,
        opset=OPSET,
        version=description.version,
    )


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Write it into an ONNX file that is there; weights beside the file stay there."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(graph, {KEY: metadata.to_json()})
    onnx.save(graph, str(path))


def move(path: Path, target: Path) -> tuple[Path, ...]:
    """Rename an exported file, and the weights beside it where there are, which are called after it.

    Args:
        path: of the file.
        target: on the same disk.

    Returns:
        The files.
    """
    weights, moved_weights = (each.with_suffix(".bin") for each in (path, target))
    if path.suffix.lower() == ".xml" and weights.is_file():  # OpenVINO finds them by the name alone
        os.replace(weights, moved_weights)
        os.replace(path, target)
        return (target, moved_weights)
    import onnx

    data, moved = (each.with_name(f"{each.name}.data") for each in (path, target))
    if not data.is_file():
        os.replace(path, target)
        return (target,)
    if path.name != target.name:
        graph = onnx.load(str(path), load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = moved.name
        onnx.save(graph, str(path))
    os.replace(data, moved)
    os.replace(path, target)
    return (target, moved)

"""Graphs in low precision: float16, and int8 with ranges that are taken from images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from .blocks import WEIGHTED

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
Images = Sequence[npt.NDArray[np.float32]]


class Lowering(Protocol):
    """A way to write a graph in low precision."""

    def write(self, path: Path, nodes: Sequence[str]) -> None:
        """Write it.

        Args:
            path: of the new file.
            nodes: which are computed in low precision, by name, at least one; all others stay as they are.
        """


class Float16:
    """Multiplies by weights in float16, as autocast does; everything else, inputs and outputs too, stays in float32.

    Weights are stored in float16, those beyond its range as its largest number. Runtimes that have no such kernels, as
    onnxruntime on x86, compute in float32 with these weights.

    Args:
        source: the file in float32.
    """

    def __init__(self, source: Path) -> None:
        self._source = source

    def write(self, path: Path, nodes: Sequence[str]) -> None:
        """As of `Lowering`."""
        import onnx

        model = onnx.load(str(self._source))
        _FloatCasts(model).apply(set(nodes))
        onnx.save(model, str(path))


class _FloatCasts:
    """Puts casts around nodes."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._halves: dict[str, str] = {}

    def apply(self, names: set[str]) -> None:
        """Change the graph in place: the nodes of these names multiply in float16."""
        from onnx import TensorProto, helper

        nodes: list[NodeProto] = []
        for node in list(self._graph.node):
            if node.name not in names:
                nodes.append(node)
                continue
            for place, tensor in enumerate(node.input):
                if tensor and tensor not in self._halves:
                    self._halves[tensor] = f"{tensor}_float16"
                    if tensor in self._constants:
                        self._graph.initializer.append(_half(self._constants[tensor], self._halves[tensor]))
                    else:
                        cast = helper.make_node("Cast", [tensor], [self._halves[tensor]], to=TensorProto.FLOAT16)
                        nodes.append(cast)
                node.input[place] = self._halves.get(tensor, "")
            result = node.output[0]
            node.output[0] = f"{result}_in_float16"
            nodes += [node, helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.FLOAT)]
        self._replace(nodes)

    def _replace(self, nodes: list[NodeProto]) -> None:
        """Set the nodes, and drop weights that nobody reads any more."""
        read = {tensor for node in nodes for tensor in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(kept)


def _half(tensor: TensorProto, name: str) -> TensorProto:
    from onnx import numpy_helper

    most = np.finfo(np.float16).max
    return numpy_helper.from_array(numpy_helper.to_array(tensor).clip(-most, most).astype(np.float16), name)


class Int8:
    """onnxruntime's static quantisation: weights in 7 bits a channel, activations in 8 bits with ranges of real images.

    The eighth bit of the weights is left out because kernels without VNNI (AVX2) would overflow with it.

    Args:
        source: the file in float32.
        images: inputs (1, 3, H, W) from which the ranges of activations are taken.
    """

    def __init__(self, source: Path, images: Images) -> None:
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        self._source = source
        with tempfile.TemporaryDirectory() as folder:
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = create_calibrator(
                source, list(WEIGHTED), augmented_model_path=augmented, calibrate_method=CalibrationMethod.MinMax
            )
            calibrator.collect_data(_Reader(images))
            self._ranges: Any = calibrator.compute_data()

    def write(self, path: Path, nodes: Sequence[str]) -> None:
        """As of `Lowering`."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        quantizer = QDQQuantizer(
            onnx.load(str(self._source)),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=list(WEIGHTED),
            # Outputs are added to and normalised in float32: to round them would cost precision and save nothing.
            extra_options={"OpTypesToExcludeOutputQuantization": list(WEIGHTED)},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(path), False)


class _Reader:
    """Images one by one, as onnxruntime's calibration reads them."""

    def __init__(self, images: Images) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image}

"""Graphs in low precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.export.blocks import weighted_blocks
from hdetr_d2.export.lowering import Float16, Int8, Lowering

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Block(nn.Module):
    """Two layers, and two products of activations, which have no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.linear2(torch.relu(self.linear1(x)))
        return x + torch.softmax(x @ x.transpose(1, 2), dim=-1) @ x


class Model(nn.Module):
    """A convolution, and two blocks that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    torch.manual_seed(0)
    wrapped = nn.Sequential().eval()
    wrapped.add_module("model", Model().eval())
    torch.onnx.export(
        wrapped, (torch.rand(1, 3, 16, 16),), str(path), dynamo=True, input_names=["images"], external_data=False
    )
    return path


def images(count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, 16, 16, generator=generator).numpy() for _ in range(count)]


def run(path: Path, image: Any) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": image})[0]


def test_a_block_has_the_layers_of_a_module_and_no_products_of_activations(graph: Path) -> None:
    blocks = weighted_blocks(onnx.load(str(graph)))
    assert {name: len(nodes) for name, nodes in blocks.items()} == {"stem": 1, "blocks.0": 2, "blocks.1": 2}
    products = [node for node in onnx.load(str(graph)).graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    assert len(products) == 9


def lowering(name: str, graph: Path) -> Lowering:
    return Float16(graph) if name == "float16" else Int8(graph, images(4))


@pytest.mark.parametrize(("name", "least", "most"), [("float16", 1e-5, 5e-3), ("int8", 1e-3, 0.3)])
@pytest.mark.parametrize("kept", [(), ("blocks.0",), ("stem", "blocks.1")])
def test_what_is_lowered_computes_nearly_the_same_and_what_is_kept_is_as_it_was(
    graph: Path, tmp_path: Path, name: str, least: float, most: float, kept: tuple[str, ...]
) -> None:
    blocks = weighted_blocks(onnx.load(str(graph)))
    nodes = [node for block, members in blocks.items() if block not in kept for node in members]
    path = tmp_path / "lowered.onnx"
    lowering(name, graph).write(path, nodes)
    onnx.checker.check_model(str(path))
    image = images(5)[-1]
    difference = np.abs(run(path, image) - run(graph, image)).max()
    assert least < difference < most  # of numbers up to about 3; far from the rounding of float32
    before, after = onnx.load(str(graph)).graph, onnx.load(str(path)).graph
    untouched = {tensor.name for tensor in before.initializer} & {tensor.name for tensor in after.initializer}
    for node in before.node:
        if node.name in {member for block in kept for member in blocks[block]}:
            assert node.input[1] in untouched  # the weights themselves, not a rounded copy
        elif node.name in nodes:
            assert node.input[1] not in untouched


def test_weights_beyond_the_range_of_float16_are_its_largest_number(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(str(graph))
    blocks = weighted_blocks(model)
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    for tensor in model.graph.initializer:
        if tensor.name == conv.input[1]:
            huge = onnx.numpy_helper.to_array(tensor) * 1e9
            tensor.CopyFrom(onnx.numpy_helper.from_array(huge, tensor.name))
    source, path = tmp_path / "huge.onnx", tmp_path / "lowered.onnx"
    onnx.save(model, str(source))
    Float16(source).write(path, blocks["stem"])
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
    assert np.isfinite(weights[f"{conv.input[1]}_float16"]).all()

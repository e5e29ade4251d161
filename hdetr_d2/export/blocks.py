"""The parts of a graph that low precision can be given to or kept from."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

WEIGHTED = ("Conv", "MatMul", "Gemm")
"""Operators that multiply by weights: nearly all of a detector's arithmetic."""
_SCOPES = "pkg.torch.onnx.name_scopes"


def weighted_blocks(graph: ModelProto) -> Mapping[str, tuple[str, ...]]:
    """The nodes that multiply by weights of the model, by the block of modules that they are in.

    A block is what surrounds the layers: of ``encoder.layers.0.ffn.linear1`` and ``...linear2`` it is
    ``encoder.layers.0.ffn``. Products of two activations, such as those of attention, are in none.

    Args:
        graph: as `export_onnx` writes it.

    Returns:
        Names of nodes by name of block, in the order of the graph.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    constants |= {node.output[0] for node in graph.graph.node if node.op_type == "Constant"}
    weighted = [node for node in graph.graph.node if node.op_type in WEIGHTED and node.input[1] in constants]
    modules = {node.name: _module(node) for node in weighted}
    around = {module.rpartition(".")[0] for module in modules.values()}
    blocks: dict[str, tuple[str, ...]] = {}
    for name, module in modules.items():
        # A functional layer's module is its block already: others' layers are within it.
        block = module if module in around else module.rpartition(".")[0] or module
        blocks[block] = (*blocks.get(block, ()), name)
    return blocks


def _module(node: NodeProto) -> str:
    """The innermost module that made a node; a node that a later optimisation made is its own."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    modules = ast.literal_eval(scopes)[:-1]  # the last one is the operator
    return str(modules[-1]).removeprefix("model.") if modules else node.name

"""A module that uses the operators, exported and run at other batch and image sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.ops import ms_deform_attn, ms_deform_attn_fused, nms_mask
from hdetr_d2.ops.onnx import onnx_translations
from hdetr_d2.ops.reference import fused_inputs_to_sampling
from tests.ops.test_nms import grid_boxes

WIDTH, HEADS, POINTS = 16, 2, 3


class Pyramid(nn.Module):
    """Every form over two levels made of one image, side by side: level shapes and queries depend on its size."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.offsets = nn.Linear(WIDTH, HEADS * 2 * POINTS * 2)
        self.logits = nn.Linear(WIDTH, HEADS * 2 * POINTS)
        self.reference = nn.Linear(WIDTH, 2 * 4)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.patches(image)
        levels = [fine, F.max_pool2d(fine, 2)]
        spatial_shapes = torch.tensor([level.shape[2:] for level in levels])
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
        batch, queries = tokens.shape[:2]
        value = self.value(tokens).reshape(batch, queries, HEADS, -1)
        offsets = self.offsets(tokens).reshape(batch, queries, HEADS, 2, POINTS, 2)
        logits = self.logits(tokens).reshape(batch, queries, HEADS, 2 * POINTS)
        boxes = self.reference(tokens).sigmoid().reshape(batch, queries, 2, 4)
        locations, weights = fused_inputs_to_sampling(spatial_shapes, offsets, logits, boxes)
        plain = ms_deform_attn(value, spatial_shapes, locations, weights)
        about_points = ms_deform_attn_fused(value, spatial_shapes, offsets, logits, boxes[..., :2])
        about_boxes = ms_deform_attn_fused(value, spatial_shapes, offsets, logits, boxes)
        return torch.cat([plain, about_points, about_boxes], -1)


def dynamic_shapes() -> tuple[dict[int, Any]]:
    """Batch, and image sizes that are multiples of the coarser stride."""
    return ({0: torch.export.Dim("batch"), 2: 8 * torch.export.Dim("rows"), 3: 8 * torch.export.Dim("columns")},)


SIZES = [(2, 32, 40), (1, 64, 24), (3, 40, 56)]


def test_onnx_export_equals_onnxruntime_at_other_sizes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module, file = Pyramid().eval(), tmp_path / "pyramid.onnx"
    torch.onnx.export(
        module,
        (torch.randn(2, 3, 32, 40),),
        str(file),
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        dynamic_shapes=dynamic_shapes(),
        custom_translation_table=onnx_translations(),
    )
    nodes = onnx.load(str(file)).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert sum(node.op_type == "GridSample" for node in nodes) == 6
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, height, width)
        (theirs,) = session.run(None, {"image": image.numpy()})
        with torch.no_grad():
            ours = module(image)
        assert theirs.shape == tuple(ours.shape)
        assert float((ours - torch.from_numpy(theirs)).abs().max()) < 1e-4


def test_torch_export_keeps_the_operators_and_other_sizes() -> None:
    torch.manual_seed(0)
    module = Pyramid().eval()
    program = torch.export.export(module, (torch.randn(2, 3, 32, 40),), dynamic_shapes=dynamic_shapes())
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.hdetr_d2.ms_deform_attn.default) == 1
    assert targets.count(torch.ops.hdetr_d2.ms_deform_attn_fused.default) == 2
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, height, width)
        assert torch.equal(program.module()(image), module(image))


class Suppression(nn.Module):
    """What remains of boxes that are given, as numbers."""

    def forward(self, boxes: Tensor) -> Tensor:
        return nms_mask(boxes, 0.53033).float()


def test_suppression_is_one_operator_of_onnx_for_any_number_of_images_and_boxes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "suppression.onnx"
    torch.onnx.export(
        Suppression(),
        (grid_boxes(2, 20, side=9),),
        str(file),
        dynamo=True,
        opset_version=18,
        input_names=["boxes"],
        dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("count")},),
        custom_translation_table=onnx_translations(),
    )
    assert [node.op_type for node in onnx.load(str(file)).graph.node].count("NonMaxSuppression") == 1
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for images, count in ((2, 20), (1, 90), (3, 7)):
        boxes = grid_boxes(images, count, side=9, seed=count)
        (found,) = session.run(None, {"boxes": boxes.numpy()})
        assert torch.equal(torch.from_numpy(found).bool(), nms_mask(boxes, 0.53033))

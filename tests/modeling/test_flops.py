"""Counting operations: of attention too, and without memory for weights."""

from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.analysis import FlopCountAnalysis as Detectron2Analysis
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hdetr_d2.export import TensorDetector
from hdetr_d2.layers import MultiScaleDeformableAttention
from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.flops import FVCORE_HANDLES
from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, build, config_of

ATTENTION = {"ms_deform_attn_fused", "scaled_dot_product_attention"}


def on_meta(name: str) -> DETR:
    with torch.device("meta"):
        model: DETR = instantiate(config_of(name))
    return model.eval()


def multiply_adds_of_sampling(model: nn.Module, image: Tensor) -> int:
    """Of all deformable attentions, from the shapes that they are called with."""
    found = []

    def count(module: nn.Module, args: Any) -> None:
        assert isinstance(module, MultiScaleDeformableAttention)
        batch, queries, width = args[0].shape
        samples = batch * queries * sum(module.points) * width  # a head samples its part of the width
        found.append(samples * (4 + 1))  # four cells, one weight

    for part in model.modules():
        if isinstance(part, MultiScaleDeformableAttention):
            part.register_forward_pre_hook(count)
    model(image)
    return sum(found)


@pytest.mark.parametrize("name", ["deformable_detr", "rtdetr", "detr"])
def test_fvcore_counts_attention(name: str) -> None:
    detector, image = TensorDetector(model=build(name).eval()), torch.rand(2, 3, 64, 96)
    analysis = FlopCountAnalysis(detector, image).unsupported_ops_warnings(False)
    counted = analysis.by_operator()
    assert not set(FVCORE_HANDLES) & set(analysis.unsupported_ops())
    assert counted["scaled_dot_product_attention"] > 0
    assert counted.get("ms_deform_attn_fused", 0) == multiply_adds_of_sampling(detector, image)


def test_dense_attention_is_two_products_of_matrices() -> None:
    query, key = torch.rand(2, 4, 10, 8), torch.rand(2, 4, 30, 8)

    class Attention(nn.Module):
        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(query, key, key)

    assert FlopCountAnalysis(Attention(), (query, key)).total() == 2 * (2 * 4 * 10 * 30 * 8)


def test_detectron2s_analysis_counts_what_fvcores_does(draw_batch: Any) -> None:
    model = build("deformable_detr").eval()
    analysis = Detectron2Analysis(model, (draw_batch((64, 96, 1)),)).unsupported_ops_warnings(False)
    expected = FlopCountAnalysis(TensorDetector(model=model), torch.rand(1, 3, 64, 96))
    kinds = expected.unsupported_ops_warnings(False).by_operator()
    assert {kind: analysis.by_operator()[kind] for kind in ATTENTION} == {kind: kinds[kind] for kind in ATTENTION}


@pytest.mark.parametrize("name", ["deformable_detr", "rtdetr"])
def test_pytorch_counts_as_much_on_the_meta_device(name: str) -> None:
    analysis = FlopCountAnalysis(TensorDetector(model=build(name).eval()), torch.rand(1, 3, 64, 96))
    expected = analysis.unsupported_ops_warnings(False).by_operator()
    with FlopCounterMode(display=False) as counter:
        TensorDetector(model=on_meta(name))(torch.empty(1, 3, 64, 96, device="meta"))
    found = {str(operator).partition(".")[2]: count for operator, count in counter.get_flop_counts()["Global"].items()}
    same = {
        "ms_deform_attn_fused": "ms_deform_attn_fused",
        "convolution": "conv",
        "bmm": "scaled_dot_product_attention",
    }
    for theirs, ours in same.items():
        assert found[theirs] == 2 * expected[ours]


def test_backward_of_deformable_attention_costs_twice_its_forward(draw_batch: Any) -> None:
    model = build("deformable_detr").train()
    with FlopCounterMode(display=False) as counter:
        sum(model(draw_batch((64, 96, 1))).values()).backward()
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    forward = counts["hdetr_d2.ms_deform_attn_fused"]
    assert counts["hdetr_d2.ms_deform_attn_fused_backward"] == 2 * forward > 0


@pytest.mark.parametrize("name", [*ONE_TO_ONE, *ONE_TO_MANY])
@torch.no_grad()
def test_a_model_without_memory_for_weights_detects_shapes(name: str, draw_batch: Any) -> None:
    model = on_meta(name)
    expected = build(name).eval()(draw_batch((64, 96, 1), (96, 64, 1)))
    for found, real in zip(model(draw_batch((64, 96, 1), (96, 64, 1))), expected, strict=True):
        boxes = found["instances"].pred_boxes.tensor
        assert boxes.is_meta
        assert boxes.shape == real["instances"].pred_boxes.tensor.shape

"""Counting operations of attention, which fvcore and PyTorch do not know by themselves.

Importing ``hdetr_d2.modeling`` registers the handles, so that ``fvcore.nn.FlopCountAnalysis``, Detectron2's class of
that name and ``torch.utils.flop_counter.FlopCounterMode``, which also runs on the meta device, include it. fvcore
counts a multiplication with its addition as one operation, PyTorch as two. What neither counts elsewhere (softmax,
additions, places to sample) is not counted here.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fvcore.nn.jit_handles import get_shape
from torch.utils.flop_counter import register_flop_formula

from hdetr_d2.ops import ms_deform_attn, ms_deform_attn_fused

Shape = Sequence[int]


def deformable_attention_macs(value: Shape, places: Shape) -> int:
    """Multiply-adds of multi-scale deformable attention: four cells and one weight a sampled feature.

    Args:
        value: the shape (B, S, H, D).
        places: the shape (B, Q, H, L, P, 2) of locations or offsets.
    """
    return 5 * math.prod(places[:-1]) * value[-1]


def dense_attention_macs(query: Shape, key: Shape, value: Shape) -> int:
    """Multiply-adds of scaled-dot-product attention, of shapes (..., N, D), (..., S, D) and (..., S, E)."""
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _of_deformable(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    del outputs
    return deformable_attention_macs(get_shape(inputs[0]), get_shape(inputs[2]))


def _of_dense(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    del outputs
    return dense_attention_macs(*(get_shape(x) for x in inputs[:3]))


FVCORE_HANDLES: dict[str, Callable[[Sequence[Any], Sequence[Any]], int]] = {
    "hdetr_d2::ms_deform_attn": _of_deformable,
    "hdetr_d2::ms_deform_attn_fused": _of_deformable,
    "aten::scaled_dot_product_attention": _of_dense,
}
"""For ``FlopCountAnalysis.set_op_handle(**FVCORE_HANDLES)``, where an analysis was given handles of its own."""


def _forward(value: Shape, spatial_shapes: Shape, places: Shape, *others: Any, **named: Any) -> int:
    del spatial_shapes, others, named
    return 2 * deformable_attention_macs(value, places)


def _backward(
    grad: Shape, value: Shape, spatial_shapes: Shape, places: Shape, weights: Shape, *others: Any, **named: Any
) -> int:
    # The gradients of values, and those of places and weights, each cost as much as the samples themselves.
    del grad, spatial_shapes, weights, named
    of_value, *of_others = (other for other in others if isinstance(other, bool))
    return 2 * (of_value + any(of_others)) * deformable_attention_macs(value, places)


def _register() -> None:
    defaults = importlib.import_module("fvcore.nn.flop_count")._DEFAULT_SUPPORTED_OPS
    for name, handle in FVCORE_HANDLES.items():
        defaults.setdefault(name, handle)
    for function in (ms_deform_attn, ms_deform_attn_fused):
        register_flop_formula(getattr(torch.ops.hdetr_d2, function.__name__))(_forward)
        # There only where the operators were built.
        backward = getattr(torch.ops.hdetr_d2, f"{function.__name__}_backward", None)
        if backward is not None:
            register_flop_formula(backward)(_backward)


_register()

"""ONNX export of the operators: they become standard ones (GridSample, NonMaxSuppression).

The decomposition of multi-scale deformable attention reads the level shapes at run time, so batch and image size stay
dynamic. Values must be float32.
Exporting with ``torch.export`` needs nothing of this: the operators have fake kernels.

    torch.onnx.export(model, arguments, file, dynamo=True, custom_translation_table=onnx_translations(), ...)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["onnx_translations"]

_FLOAT, _BOOL = 1, 9  # of TensorProto


@dataclass(frozen=True)
class _StaticSizes:
    """What must be known when exporting; batch, tokens, queries and level shapes are read at run time."""

    heads: int
    width: int
    levels: int
    points: int

    @classmethod
    def of(cls, value: Any, positions: Any) -> "_StaticSizes":
        """From the exporter's shapes of ``value`` and locations or offsets, whose unknown sizes are no ints."""
        sizes = [value.shape[2], value.shape[3], positions.shape[3], positions.shape[4]]
        if not all(isinstance(size, int) for size in sizes):
            raise RuntimeError(
                "ms_deform_attn: an ONNX export needs fixed heads, width, levels and points, "
                f"but value is {value.shape} and locations or offsets are {positions.shape}"
            )
        return cls(*sizes)


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The operators, and stable sorting, in standard ones: ``custom_translation_table`` of ``torch.onnx.export``.

    Needs onnxscript.
    The GridSample of opset 16 to 19 is used, so exporting with ``opset_version`` 18 needs no conversion.
    """
    operators = torch.ops.hdetr_d2
    return {
        operators.ms_deform_attn.default: _translate,
        operators.ms_deform_attn_fused.default: _translate_fused,
        operators.nms_mask.default: _translate_nms,
        torch.ops.aten.sort.stable: _translate_stable_sort,
    }


def _translate(value: Any, spatial_shapes: Any, sampling_locations: Any, attention_weights: Any) -> Any:
    """``ms_deform_attn``: one GridSample a level, weighted and summed, (B, Q, H * D)."""
    from onnxscript import opset18 as op

    sizes = _StaticSizes.of(value, sampling_locations)
    queries = op.Slice(op.Shape(sampling_locations), _ints(1), _ints(2))
    end = _ints(0)
    output: Any = None
    for level in range(sizes.levels):
        pixels = op.Reshape(op.Gather(spatial_shapes, _ints(level), axis=0), _ints(2))
        start, end = end, op.Add(end, op.ReduceProd(pixels, keepdims=1))
        feature = op.Transpose(op.Slice(value, start, end, _ints(1)), perm=[0, 2, 3, 1])
        feature = op.Reshape(feature, op.Concat(_ints(-1, sizes.width), pixels, axis=0))  # (B * H, D, H_l, W_l)

        grid = op.Squeeze(op.Gather(sampling_locations, _ints(level), axis=3), _ints(3))
        shape = op.Concat(_ints(-1), queries, _ints(sizes.points, 2), axis=0)
        grid = op.Reshape(op.Transpose(grid, perm=[0, 2, 1, 3, 4]), shape)
        grid = op.Sub(op.Mul(grid, _float(2.0)), _float(1.0))  # (B * H, Q, P, 2)
        sampled = op.GridSample(feature, grid, mode="bilinear", padding_mode="zeros", align_corners=0)

        weight = op.Squeeze(op.Gather(attention_weights, _ints(level), axis=3), _ints(3))
        shape = op.Concat(_ints(-1, 1), queries, _ints(sizes.points), axis=0)
        weight = op.Reshape(op.Transpose(weight, perm=[0, 2, 1, 3]), shape)  # (B * H, 1, Q, P)
        summed = op.ReduceSum(op.Mul(sampled, weight), _ints(-1), keepdims=0)
        output = summed if output is None else op.Add(output, summed)
    shape = op.Concat(_ints(-1, sizes.heads * sizes.width), queries, axis=0)
    return op.Transpose(op.Reshape(output, shape), perm=[0, 2, 1])


def _translate_fused(
    value: Any, spatial_shapes: Any, sampling_offsets: Any, attention_logits: Any, reference_points: Any
) -> Any:
    """``ms_deform_attn_fused``: softmax and locations, then as above."""
    from onnxscript import opset18 as op

    sizes = _StaticSizes.of(value, sampling_offsets)
    weights_shape = _ints(0, 0, 0, sizes.levels, sizes.points)  # 0 keeps a size
    weights: Any = op.Reshape(op.Softmax(attention_logits, axis=-1), weights_shape)
    reference = op.Unsqueeze(reference_points, _ints(2, 4))  # (B, Q, 1, L, 1, 2 or 4)
    if reference_points.shape[3] == 2:
        pixels: Any = op.Cast(op.Gather(spatial_shapes, _ints(1, 0), axis=1), to=_FLOAT)
        locations = op.Add(reference, op.Div(sampling_offsets, op.Unsqueeze(pixels, _ints(1))))
    else:
        centres, boxes = (op.Gather(reference, _ints(*pair), axis=5) for pair in ((0, 1), (2, 3)))
        boxes = op.Mul(boxes, _float(0.5 / sizes.points))
        locations = op.Add(centres, op.Mul(sampling_offsets, boxes))
    locations.shape = sampling_offsets.shape
    return _translate(value, spatial_shapes, locations, weights)


def _translate_nms(boxes: Any, threshold: Any) -> Any:
    """``nms_mask``: the one operator that suppresses, whose list of what remains becomes a mask (B, M)."""
    from onnxscript import opset18 as op

    size: Any = op.Slice(op.Shape(boxes), _ints(0), _ints(2))  # B, M
    count = op.Slice(size, _ints(1), _ints(2))
    falling: Any = op.CumSum(op.Expand(_float(-1.0), count), _ints(0))  # scores without ties
    scores: Any = op.Unsqueeze(op.Expand(falling, size), _ints(1))
    threshold = op.Constant(value_floats=[threshold])
    found = op.NonMaxSuppression(boxes, scores, count, threshold)  # (image, class, box)
    places = op.Gather(found, _ints(0, 2), axis=1)
    ones = op.Expand(_ints(1), op.Slice(op.Shape(places), _ints(0), _ints(1)))
    zeros = op.Expand(_ints(0), size)
    return op.Cast(op.ScatterND(zeros, places, ones), to=_BOOL)


def _translate_stable_sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``sort(stable=True)``, which PyTorch's exporter does not have: TopK, in which of equals the first comes first."""
    from onnxscript import opset18 as op

    shape: Any = op.Shape(x)
    return op.TopK(x, op.Gather(shape, _ints(dim)), axis=dim, largest=int(descending), sorted=1)


def _ints(*numbers: int) -> Any:
    from onnxscript import opset18

    return opset18.Constant(value_ints=list(numbers))


def _float(number: float) -> Any:
    from onnxscript import opset18

    return opset18.Constant(value_float=number)

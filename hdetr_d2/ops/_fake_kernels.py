"""Fake kernels of multi-scale deformable attention: what shapes and types alone decide (tracing, meta device).

They check what the kernels check (csrc/ms_deform_attn/check.cpp), but for the numbers in ``spatial_shapes``.
"""

from typing import Any

import torch
from torch import Tensor

from ._checks import require

__all__ = ["accumulation_dtype", "fake_backward", "fake_forward", "fake_fused_backward", "fake_fused_forward"]

_OPERATOR = "ms_deform_attn"


def accumulation_dtype(value: Tensor) -> torch.dtype:
    """The type of everything but value and output."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def fake_forward(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    _check_sampling(value, spatial_shapes, locations, weights)
    return _empty_output(value, locations)


def fake_fused_forward(
    value: Tensor, spatial_shapes: Tensor, offsets: Tensor, logits: Tensor, reference_points: Tensor
) -> Tensor:
    _check_fused(value, spatial_shapes, offsets, logits, reference_points)
    return _empty_output(value, offsets)


def fake_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *needs: bool,
) -> tuple[Tensor, ...]:
    _check_sampling(value, spatial_shapes, sampling_locations, attention_weights)
    _check_grad_output(grad_output, value, sampling_locations)
    return _empty_gradients(needs, value, sampling_locations, attention_weights)


def fake_fused_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    reference_points: Tensor,
    *needs: bool,
) -> tuple[Tensor, ...]:
    _check_fused(value, spatial_shapes, sampling_offsets, attention_logits, reference_points)
    _check_grad_output(grad_output, value, sampling_offsets)
    return _empty_gradients(needs, value, sampling_offsets, attention_logits, reference_points)


def _empty_gradients(needs: tuple[bool, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape if needed else (0,)) for x, needed in zip(tensors, needs))


def _empty_output(value: Tensor, positions: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], positions.shape[1], value.shape[2] * value.shape[3])


_VALUE_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _check_given(**tensors: Tensor | None) -> None:
    """Operators let None pass as a tensor."""
    for name, tensor in tensors.items():
        require(tensor is not None, _OPERATOR, name, "a tensor", tensor)


def _check_like_value(name: str, tensor: Tensor, value: Tensor, *shape: Any) -> None:
    """What all floating-point arguments but value must be; a size of None is free."""
    _check_given(**{name: tensor})
    expected = accumulation_dtype(value)
    require(tensor.dtype == expected, _OPERATOR, name, f"{expected} when value is {value.dtype}", tensor.dtype)
    require(tensor.device == value.device, _OPERATOR, name, f"on {value.device} like value", tensor.device)
    must_be = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    require(tensor.dim() == len(shape), _OPERATOR, name, must_be, tensor.shape)
    for size, found in zip(shape, tensor.shape):
        if size is not None:
            require(found == size, _OPERATOR, name, must_be, tensor.shape)


def _check_common(value: Tensor, spatial_shapes: Tensor, positions: Tensor, name: str) -> None:
    _check_given(value=value, spatial_shapes=spatial_shapes)
    require(value.dim() == 4, _OPERATOR, "value", "(batch, tokens, heads, width)", value.shape)
    require(value.dtype in _VALUE_TYPES, _OPERATOR, "value", f"one of {_VALUE_TYPES}", value.dtype)
    require(spatial_shapes.dtype == torch.int64, _OPERATOR, "spatial_shapes", "int64", spatial_shapes.dtype)
    require(spatial_shapes.dim() == 2, _OPERATOR, "spatial_shapes", "(levels, 2)", spatial_shapes.shape)
    require(spatial_shapes.shape[1] == 2, _OPERATOR, "spatial_shapes", "(levels, 2)", spatial_shapes.shape)
    batch, _, heads, _ = value.shape
    _check_like_value(name, positions, value, batch, None, heads, spatial_shapes.shape[0], None, 2)


def _check_sampling(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> None:
    _check_common(value, spatial_shapes, locations, "sampling_locations")
    _check_like_value("attention_weights", weights, value, *locations.shape[:5])


def _check_fused(value: Tensor, spatial_shapes: Tensor, offsets: Tensor, logits: Tensor, reference: Tensor) -> None:
    _check_common(value, spatial_shapes, offsets, "sampling_offsets")
    batch, queries, heads, levels, points, _ = offsets.shape
    _check_like_value("attention_logits", logits, value, batch, queries, heads, levels * points)
    _check_like_value("reference_points", reference, value, batch, queries, levels, None)
    require(reference.shape[3] in (2, 4), _OPERATOR, "reference_points", "(..., 2 or 4)", reference.shape)


def _check_grad_output(grad_output: Tensor, value: Tensor, positions: Tensor) -> None:
    _check_given(grad_output=grad_output)
    expected = (value.shape[0], positions.shape[1], value.shape[2] * value.shape[3])
    require(grad_output.dtype == value.dtype, _OPERATOR, "grad_output", value.dtype, grad_output.dtype)
    require(grad_output.dim() == 3, _OPERATOR, "grad_output", "(batch, queries, heads * width)", grad_output.shape)
    for found, size in zip(grad_output.shape, expected):
        require(found == size, _OPERATOR, "grad_output", expected, grad_output.shape)

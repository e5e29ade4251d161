"""The public functions of multi-scale deformable attention, and the autograd and fake kernels of their operators.

The operators ``torch.ops.hdetr_d2.ms_deform_attn*`` come from the compiled library (csrc/ms_deform_attn), or are
declared here if there is none; on a device without kernels the PyTorch reference runs, after a warning, and an exported
graph has the operator all the same. Only the inputs are kept for the backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from . import _extension
from ._fake_kernels import accumulation_dtype, fake_backward, fake_forward, fake_fused_backward, fake_fused_forward
from .reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

__all__ = ["ms_deform_attn", "ms_deform_attn_fused"]

_SCHEMAS = (
    "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights) -> Tensor",
    "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights, bool value_needs_grad, bool locations_need_grad, bool weights_need_grad) -> "
    "(Tensor, Tensor, Tensor)",
    "ms_deform_attn_fused(Tensor value, Tensor spatial_shapes, Tensor sampling_offsets, Tensor attention_logits, "
    "Tensor reference_points) -> Tensor",
    "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, Tensor sampling_offsets, "
    "Tensor attention_logits, Tensor reference_points, bool value_needs_grad, bool offsets_need_grad, "
    "bool logits_need_grad, bool reference_needs_grad) -> (Tensor, Tensor, Tensor, Tensor)",
)


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, eq. 3).

    Args:
        value: (B, S, H, D) projected features of all levels one after another, S = sum of H_l * W_l; float32, float64,
            float16 or bfloat16. Under autocast it is cast to the autocast type.
        spatial_shapes: (L, 2) int64, (H_l, W_l) of each level. A CPU tensor beside CUDA ones costs no synchronisation.
        sampling_locations: (B, Q, H, L, P, 2) as (x, y) in [0, 1] over the level; outside, infinite or NaN reads zeros.
            Used in float32 whatever its type (float64 if ``value`` is): half locations are off by up to 0.3 pixel.
        attention_weights: (B, Q, H, L, P), used in float32 likewise.

    Returns:
        (B, Q, H * D) in the dtype of ``value``: bilinear samples (zero padding, corners not aligned), weighted and
        summed in float32. Differentiable once in all floating-point arguments.

    Raises:
        RuntimeError: naming the argument, if a shape or dtype does not fit.
    """
    value = _autocast(value)
    dtype = accumulation_dtype(value)
    if _needs_reference(value):
        _extension.warn_about_reference(value.device.type)
        return ms_deform_attn_reference(
            value, spatial_shapes, sampling_locations.to(dtype), attention_weights.to(dtype)
        )
    return torch.ops.hdetr_d2.ms_deform_attn(
        value, spatial_shapes, sampling_locations.to(dtype), attention_weights.to(dtype)
    )


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    reference_points: Tensor,
) -> Tensor:
    """Multi-scale deformable attention that makes softmax and locations itself (Deformable DETR, appendix A.2).

    Preparing them in PyTorch costs more than the sampling.

    Args:
        value: (B, S, H, D), as in :func:`ms_deform_attn`.
        spatial_shapes: (L, 2) int64, (H_l, W_l).
        sampling_offsets: (B, Q, H, L, P, 2) raw (x, y) offsets: pixels of the level with 2-d reference points, P-ths
            of half the box's width and height with 4-d ones.
        attention_logits: (B, Q, H, L * P) raw; their softmax over all levels and points weighs the samples.
        reference_points: (B, Q, L, 2) centres (x, y), or (B, Q, L, 4) boxes cxcywh, in [0, 1] of the padded level.

    Returns:
        (B, Q, H * D) in the dtype of ``value``. Differentiable once in all floating-point arguments.

    Raises:
        RuntimeError: naming the argument, if a shape or dtype does not fit.
    """
    value = _autocast(value)
    dtype = accumulation_dtype(value)
    if _needs_reference(value):
        _extension.warn_about_reference(value.device.type)
        return ms_deform_attn_fused_reference(
            value, spatial_shapes, sampling_offsets, attention_logits, reference_points
        )
    return torch.ops.hdetr_d2.ms_deform_attn_fused(
        value, spatial_shapes, sampling_offsets.to(dtype), attention_logits.to(dtype), reference_points.to(dtype)
    )


def _needs_reference(value: Tensor) -> bool:
    """Whether no kernel runs here. A graph that is being exported runs elsewhere: it has the operator as it is."""
    return value.device.type not in _extension.KERNELS and not torch.compiler.is_exporting()


def _autocast(value: Tensor) -> Tensor:
    device_type = value.device.type
    # The meta device has no autocast, and raises where it is asked for.
    if value.dtype == torch.float32 and device_type != "meta" and torch.is_autocast_enabled(device_type):
        return value.to(torch.get_autocast_dtype(device_type))
    return value


# ---------------------------------------------------------------- autograd


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    return _with_none(ctx, torch.ops.hdetr_d2.ms_deform_attn_backward(grad_output, *ctx.saved_tensors, *_needs(ctx)))


def _differentiate_fused(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    backward = torch.ops.hdetr_d2.ms_deform_attn_fused_backward
    return _with_none(ctx, backward(grad_output, *ctx.saved_tensors, *_needs(ctx)))


def _needs(ctx: Any) -> tuple[bool, ...]:
    """Which gradients are needed, of all arguments but ``spatial_shapes``."""
    value, _, *others = ctx.needs_input_grad
    return value, *others


def _with_none(ctx: Any, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """Gradients of all arguments, from those of all but ``spatial_shapes``; what is not needed is an empty tensor."""
    value, *others = (gradient if needed else None for gradient, needed in zip(gradients, _needs(ctx)))
    return value, None, *others


def _by_reference(reference: Callable[..., Tensor]) -> Callable[..., tuple[Tensor | None, ...]]:
    """The derivative of an operator that is not compiled: of the reference, which runs once more."""

    def differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [kept.detach().requires_grad_(need) for kept, need in zip(ctx.saved_tensors, ctx.needs_input_grad)]
        with torch.enable_grad():
            output = reference(*inputs)
        gradients = iter(torch.autograd.grad(output, [x for x in inputs if x.requires_grad], grad_output))
        return tuple(next(gradients) if x.requires_grad else None for x in inputs)

    return differentiate


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _refuse_second_derivative(ctx: Any, *grad_outputs: Tensor) -> None:
    raise RuntimeError(
        "hdetr_d2: ms_deform_attn has no second derivative; use ms_deform_attn_reference for double backward"
    )


# ---------------------------------------------------------------- registration


def _register() -> Library:
    """Give the loaded operators what is written in Python, or declare them. The library must be kept alive."""
    library = Library("hdetr_d2", "FRAGMENT")
    forward, backward, fused, fused_backward = (f"hdetr_d2::{schema.partition('(')[0]}" for schema in _SCHEMAS)
    if not _extension.KERNELS:
        _declare(library)
        return library
    torch.library.register_fake(forward, fake_forward, lib=library)
    torch.library.register_fake(fused, fake_fused_forward, lib=library)
    torch.library.register_fake(backward, fake_backward, lib=library)
    torch.library.register_fake(fused_backward, fake_fused_backward, lib=library)
    torch.library.register_autograd(forward, _differentiate, setup_context=_keep_inputs, lib=library)
    torch.library.register_autograd(fused, _differentiate_fused, setup_context=_keep_inputs, lib=library)
    for name in (backward, fused_backward):
        torch.library.register_autograd(name, _refuse_second_derivative, setup_context=_keep_nothing, lib=library)
    return library


def _declare(library: Library) -> None:
    """The forward operators by the reference. They stay whole in exported graphs, as the compiled ones do."""
    forms: tuple[tuple[int, Callable[..., Tensor], Callable[..., Tensor]], ...] = (
        (0, ms_deform_attn_reference, fake_forward),
        (2, ms_deform_attn_fused_reference, fake_fused_forward),
    )
    for position, reference, fake in forms:
        schema = _SCHEMAS[position]
        name = schema.partition("(")[0]
        library.define(schema)
        library.impl(name, reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"hdetr_d2::{name}", fake, lib=library)
        differentiate = _by_reference(reference)
        torch.library.register_autograd(f"hdetr_d2::{name}", differentiate, setup_context=_keep_inputs, lib=library)


_LIBRARY = _register()

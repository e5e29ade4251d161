"""Compiled operators under ``torch.ops.hdetr_d2``, and the same in plain PyTorch."""

from .ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from .nms import nms_mask, nms_mask_reference
from .reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

__all__ = [
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "ms_deform_attn_fused_reference",
    "ms_deform_attn_reference",
    "nms_mask",
    "nms_mask_reference",
]

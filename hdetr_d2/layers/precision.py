"""Computing in full precision within autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type that autocast would multiply both in; without autocast the weight's."""
    kind = x.device.type
    if x.dtype == torch.float64:
        return x.dtype
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return weight.dtype
    return torch.get_autocast_dtype(kind)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast; the meta device has none and needs none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device_type=device.type, enabled=False)

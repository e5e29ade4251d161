"""Computing in full precision within autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast; the meta device has none and needs none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device_type=device.type, enabled=False)

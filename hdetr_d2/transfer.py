"""Between the host and a device: whatever goes at one time goes in one copy."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["pack", "to_device", "to_host", "unpack"]


def pack(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """Tensors of different type as one array of bytes; larger elements must come first, to stay aligned.

    Args:
        tensors: of one device.
        pinned: whether the array is to be in memory that a device can read while the host goes on.
    """
    parts = [x.contiguous().flatten().view(torch.uint8) for x in tensors]
    if not pinned:
        return torch.cat(parts)
    return torch.cat(parts, out=torch.empty(sum(map(len, parts)), dtype=torch.uint8, pin_memory=True))


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The tensors again, with the shapes and types of ``like``."""
    parts = packed.split([x.numel() * x.element_size() for x in like])
    return [part.view(x.dtype).view(x.shape) for part, x in zip(parts, like)]


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU in one transfer, which waits until the device has computed them.

    Tensors on the CPU are given as they are.
    """
    return _moved(tensors, lambda x: x.device.type == "cpu", lambda away: pack(away).cpu())


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy tensors of the host to a device in one transfer, which nothing waits for.

    The host's side of it is pinned memory, without which a copy waits for all that the device was given before.

    Args:
        tensors: any; those on ``device`` are given as they are.
        device: where they are wanted.

    Returns:
        The same, some of them parts of one array.
    """
    pinned = device.type == "cuda" and torch.cuda.is_available() and not torch.compiler.is_compiling()
    return _moved(
        tensors,
        lambda x: x.device.type == device.type,
        lambda away: pack(away, pinned=pinned).to(device, non_blocking=True),
    )


def _moved(
    tensors: Sequence[Tensor], is_there: Callable[[Tensor], bool], copy: Callable[[Sequence[Tensor]], Tensor]
) -> list[Tensor]:
    """All tensors, those that are not there copied together as an array of bytes."""
    moved = list(tensors)
    away = sorted((i for i, x in enumerate(tensors) if not is_there(x)), key=lambda i: -tensors[i].element_size())
    if away:
        like = [tensors[i] for i in away]
        for i, x in zip(away, unpack(copy(like), like)):
            moved[i] = x
    return moved

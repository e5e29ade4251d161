"""The device of a process, and models in several of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def check_device(name: str) -> None:
    """Refuse a device that is not there, without taking hold of one (the processes to be started will)."""
    if name not in DEVICES:
        raise ConfigError(
            f'train.device must be one of {", ".join(DEVICES)}, not "{name}"; CUDA_VISIBLE_DEVICES chooses among GPUs'
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device=cuda, but PyTorch finds no CUDA device; use train.device=cpu")


def resolve_device(name: str) -> torch.device:
    """The device of this process: "auto" is CUDA where there is any, else the CPU."""
    check_device(name)
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def wrap_ddp(model: nn.Module, **options: Any) -> nn.Module:
    """``model`` in DistributedDataParallel where there are several processes, else as it is."""
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None, **options)


def unwrap(model: nn.Module) -> nn.Module:
    """The module that DistributedDataParallel wraps, or ``model``."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process rank 0's buffers: the statistics of a trained BatchNorm follow each process's own images."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

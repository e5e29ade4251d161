"""Starting processes: one, several by ``--num-gpus``, or several by ``torchrun``; NCCL with GPUs, gloo without.

Detectron2 0.6 launches NCCL only and knows no ``torchrun``; this launcher sets up the same process groups
(``detectron2.utils.comm`` works afterwards) for both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..compat import create_local_process_group, destroy_process_group
from .errors import ConfigError

TIMEOUT = timedelta(minutes=30)


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


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= set(os.environ)


def launch(
    main: Callable[..., Any],
    *,
    num_processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "auto",
    args: tuple[Any, ...] = (),
) -> Any:
    """Call ``main(*args)`` in every process of the job.

    Under ``torchrun`` this process is one of them. Otherwise ``num_processes`` are spawned on this machine (``main``
    and ``args`` must then be picklable), or ``main`` is called directly where the job has one process.

    Args:
        num_processes: on this machine; GPUs, if there are any and ``device`` does not say "cpu".
        machine_rank: of this machine among ``num_machines``.
        dist_url: where rank 0 listens; "auto" picks a free port, on one machine.
        device: as in ``train.device``.

    Returns:
        What ``main`` returns, where it runs in this process; None after spawning.
    """
    if started_by_torchrun():
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        _join(
            rank=int(os.environ["RANK"]),
            local_rank=int(os.environ["LOCAL_RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            local_size=local_size,
            dist_url="env://",
            device=device,
        )
        try:
            return main(*args)
        finally:
            destroy_process_group()
    if num_processes * num_machines == 1:
        return main(*args)
    if dist_url == "auto":
        if num_machines > 1:
            raise ConfigError("--dist-url must be given with --num-machines: tcp://<address of machine 0>:<free port>")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    mp.start_processes(
        _spawned,
        args=(main, num_processes, num_machines, machine_rank, dist_url, device, args),
        nprocs=num_processes,
        start_method="spawn",
    )
    return None


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _spawned(
    local_rank: int,
    main: Callable[..., Any],
    num_processes: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str,
    device: str,
    args: tuple[Any, ...],
) -> None:
    _join(
        rank=machine_rank * num_processes + local_rank,
        local_rank=local_rank,
        world_size=num_machines * num_processes,
        local_size=num_processes,
        dist_url=dist_url,
        device=device,
    )
    try:
        main(*args)
    finally:
        destroy_process_group()


def _join(*, rank: int, local_rank: int, world_size: int, local_size: int, dist_url: str, device: str) -> None:
    """Make this process member ``rank`` of the job and choose its GPU."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local_size > torch.cuda.device_count():
            raise ConfigError(
                f"{local_size} processes on a machine with {torch.cuda.device_count()} GPU(s); "
                "start fewer, or use train.device=cpu"
            )
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Each process would otherwise start a thread for every core and they would wait for one another.
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", init_method=dist_url, world_size=world_size, rank=rank, timeout=TIMEOUT
    )
    create_local_process_group(local_size)
    comm.synchronize()


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

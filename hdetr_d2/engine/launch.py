"""Starting processes: one, several by ``--num-gpus``, or several by ``torchrun``; NCCL with GPUs, gloo without.

Detectron2 0.6 launches NCCL only and knows no ``torchrun``; this launcher sets up the same process groups
(``detectron2.utils.comm`` works afterwards) for both.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch._C._distributed_c10d import Store  # torch.distributed's, where its type is declared
from torch.distributed.rendezvous import rendezvous

from hdetr_d2.errors import UserError
from hdetr_d2.processes import die_with_parent

from ..compat import create_local_process_group, destroy_process_group
from .attempts import store_of_this_attempt
from .errors import ConfigError
from .network import INTERFACE_VARIABLE, choose_interface, master_host, require_address, whole_number
from .spawning import run_processes

TIMEOUT = timedelta(minutes=30)
SHARE_VARIABLE = "HDETR_D2_SHARE_GPUS"
"""Set to 1, it lets a job have more processes than GPUs; they exchange gradients by gloo, for NCCL refuses."""


def uses_cuda(device: str) -> bool:
    """Whether ``train.device`` means GPUs on this machine."""
    return device != "cpu" and torch.cuda.is_available()


def started_by_torchrun() -> bool:
    """Whether torchrun, or a program that sets the same variables, has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= set(os.environ)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The processes of a job, as the command line describes them.

    Args:
        num_processes: on each machine; GPUs, if there are any and ``device`` does not say "cpu". 0 is one process on
            the CPU.
        num_machines: in all.
        machine_rank: of this machine among them.
        dist_url: where rank 0 listens; "auto" picks a free port, on one machine.
        device: as in ``train.device``.

    Raises:
        ConfigError: there is no such job; the message names the option.
    """

    num_processes: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.num_processes < 0:
            raise ConfigError(f"--num-gpus {self.num_processes}: there is no such number of processes; give 1 or more")
        if self.num_processes == 0 and uses_cuda(self.device):
            raise ConfigError(
                f"--num-gpus 0 asks for no GPU, and train.device={self.device} for those that there are; leave one of "
                "them out"
            )
        if self.num_machines < 1:
            raise ConfigError(f"--num-machines {self.num_machines}: give 1 or more")
        if not 0 <= self.machine_rank < self.num_machines:
            ranks = "0" if self.num_machines == 1 else f"0 to {self.num_machines - 1}"
            raise ConfigError(
                f"--machine-rank {self.machine_rank} is not among the {self.num_machines} of --num-machines; it "
                f"is {ranks}, another one on each machine"
            )
        if self.num_machines > 1 and self.dist_url == "auto":
            raise ConfigError("--dist-url must be given with --num-machines: tcp://<address of machine 0>:<free port>")
        if self.dist_url != "auto" and not self.dist_url.startswith(("tcp://", "env://", "file://")):
            raise ConfigError(f"--dist-url {self.dist_url}: give tcp://<address of machine 0>:<free port>")
        require_address(self.dist_url)

    @property
    def processes_here(self) -> int:
        return max(1, self.num_processes)

    @property
    def world_size(self) -> int:
        return self.processes_here * self.num_machines


def launch(main: Callable[..., Any], job: Job, *, args: tuple[Any, ...] = ()) -> Any:
    """Call ``main(*args)`` in every process of the job.

    Under ``torchrun`` this process is one of them. Otherwise processes are spawned on this machine (``main`` and
    ``args`` must then be picklable), or ``main`` is called directly where the job has one process.

    Returns:
        What ``main`` returns, where it runs in this process; None after spawning.

    Raises:
        UserError: the one that a process raised.
        SystemExit: as the processes exited.
    """
    if started_by_torchrun():
        return _run_under_torchrun(main, job, args)
    if job.world_size == 1:
        return main(*args)
    dist_url = f"tcp://127.0.0.1:{_free_port()}" if job.dist_url == "auto" else job.dist_url
    run_processes(_spawned, (main, job, dist_url, args), count=job.processes_here)
    return None


def _run_under_torchrun(main: Callable[..., Any], job: Job, args: tuple[Any, ...]) -> Any:
    die_with_parent(os.getppid())
    world_size, rank = whole_number("WORLD_SIZE", None), whole_number("RANK", None)
    local_size, local_rank = whole_number("LOCAL_WORLD_SIZE", world_size), whole_number("LOCAL_RANK", None)
    if not rank < world_size:
        raise ConfigError(f"the environment says RANK={rank} of WORLD_SIZE={world_size}; ranks count from 0")
    if not local_rank < local_size <= world_size:
        raise ConfigError(
            f"the environment says LOCAL_RANK={local_rank} of LOCAL_WORLD_SIZE={local_size} and "
            f"WORLD_SIZE={world_size}; local ranks count from 0 on each machine"
        )
    _join(
        rank=rank,
        local_rank=local_rank,
        world_size=world_size,
        local_size=local_size,
        dist_url="env://",
        device=job.device,
    )
    try:
        return main(*args)
    except UserError as error:
        error.told = error.told or not _is_first_to_say(str(error))
        raise
    finally:
        destroy_process_group()


def _is_first_to_say(message: str) -> bool:
    """Whether no other process of the job has asked this; without waiting for them."""
    key = f"hdetr_d2/said/{hashlib.sha256(message.encode()).hexdigest()}"
    try:
        return dist.distributed_c10d._get_default_store().add(key, 1) == 1
    except RuntimeError:  # the process that holds the store has ended
        return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _spawned(local_rank: int, main: Callable[..., Any], job: Job, dist_url: str, args: tuple[Any, ...]) -> None:
    _join(
        rank=job.machine_rank * job.processes_here + local_rank,
        local_rank=local_rank,
        world_size=job.world_size,
        local_size=job.processes_here,
        dist_url=dist_url,
        device=job.device,
    )
    main(*args)
    destroy_process_group()


def _join(*, rank: int, local_rank: int, world_size: int, local_size: int, dist_url: str, device: str) -> None:
    """Make this process member ``rank`` of the job and choose its GPU."""
    on_gpu = uses_cuda(device)
    backend = _choose_gpu(local_rank, local_size) if on_gpu else "gloo"
    if not on_gpu and "OMP_NUM_THREADS" not in os.environ:
        # Each process would otherwise start a thread for every core and they would wait for one another.
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    num_machines = max(1, world_size // local_size)
    interface = choose_interface(dist_url, num_machines=num_machines)
    try:
        store = _store(dist_url, rank, world_size)
        dist.init_process_group(backend, store=store, world_size=world_size, rank=rank, timeout=TIMEOUT)
        create_local_process_group(local_size)
        comm.synchronize()
    except (dist.DistError, RuntimeError, ValueError, OSError) as error:
        raise _no_connection(error, dist_url, num_machines, interface) from error


def _choose_gpu(local_rank: int, local_size: int) -> str:
    """Make a GPU this process's, and return the backend that its job can have."""
    count = torch.cuda.device_count()
    if local_size > count and os.environ.get(SHARE_VARIABLE) != "1":
        raise ConfigError(
            f"{local_size} processes on a machine with {count} GPU(s); start fewer, use train.device=cpu, or set "
            f"{SHARE_VARIABLE}=1 to let them share"
        )
    torch.cuda.set_device(local_rank % count)
    return "nccl" if local_size <= count else "gloo"


def _store(dist_url: str, rank: int, world_size: int) -> Store:
    """Where the processes find one another's addresses."""
    store, _, _ = next(rendezvous(dist_url, rank, world_size, timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun's, which outlives the processes
        return store_of_this_attempt(store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    return store


def _no_connection(error: Exception, dist_url: str, num_machines: int, interface: str) -> ConfigError:
    reason = str(error).strip().partition("\n")[0]
    where = dist_url if dist_url != "env://" else f"{master_host(dist_url)}:{os.environ.get('MASTER_PORT')}"
    remedy = "see that the port is free and that no firewall is in between"
    if num_machines > 1:
        used = os.environ.get(INTERFACE_VARIABLE, "") or "gloo's own choice"
        chosen = " (chosen from the route to it)" if interface else ""
        remedy += (
            f"; that every machine was started with the same address and its own rank, and reaches {where}; and that "
            f"{INTERFACE_VARIABLE} names the interface between the machines, here {used}{chosen}"
        )
    return ConfigError(
        f"the processes of the job found no connection over {where}: {reason}; {remedy} (docs/machines.md)"
    )

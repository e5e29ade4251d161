"""A training in two gloo processes, of which one has no targets in each step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import _draw_image


def two_steps(model: nn.Module, rank: int) -> list[list[str]]:
    """Train a model in which this process has targets in one of the steps: the names of the losses in each."""
    parallel = DistributedDataParallel(model.train())
    optimizer = torch.optim.SGD(parallel.parameters(), lr=1e-3)
    torch.manual_seed(rank)
    keys = []
    for step in range(2):
        losses = parallel([_draw_image(64, 96, 3 if rank == step else 0, seed=step)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        keys.append(list(losses))
    return keys


def _work(rank: int, folder: str, train: Callable[[int], Any]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save(train(rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_two_processes(train: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``train(rank)``, a function of a module, returns in each of two processes."""
    mp.spawn(_work, args=(str(folder), train), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]

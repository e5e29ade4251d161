"""What the processes of a job tell one another. Without a process group there is one process, and nothing waits.

Reductions do not wait for the device, so that losses may use them in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from hdetr_d2.errors import UserError

__all__ = [
    "all_over_ranks",
    "from_main_process",
    "mean_count_over_ranks",
    "mean_over_ranks",
    "rank",
    "sum_over_ranks",
    "world_size",
]

T = TypeVar("T")


def world_size() -> int:
    """How many processes the job has."""
    return dist.get_world_size() if _in_a_group() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if _in_a_group() else 0


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all processes, on all of them; ``values`` itself where there is one."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of floating point ``values`` over all processes, on all of them."""
    processes = world_size()
    return values if processes == 1 else sum_over_ranks(values) / processes


def mean_count_over_ranks(count: int, like: Tensor) -> Tensor:
    """The mean of a count over all processes: a float32 scalar on the device of ``like``."""
    return mean_over_ranks(torch.full((), float(count), dtype=torch.float32, device=like.device))


def all_over_ranks(flags: Tensor) -> Tensor:
    """Which of the boolean ``flags`` hold in every process: uint8 of the same shape."""
    agreed = flags.to(torch.uint8)
    if world_size() > 1:
        dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return agreed


def from_main_process(function: Callable[[], T]) -> T:
    """Call ``function`` in process 0, and give what it returns, or the `UserError` it raises, to every process.

    Args:
        function: its result must be picklable; an error arrives as the class it had, with its message.

    Raises:
        UserError: process 0 tells it, for all.
    """
    if world_size() == 1:
        return function()
    outcome: list[tuple[Any, UserError | None]] = [(None, None)]
    if rank() == 0:
        try:
            outcome = [(function(), None)]
        except UserError as error:
            error.__traceback__ = None
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome, src=0)
    result, failure = outcome[0]
    if failure is not None:
        failure.told = rank() != 0
        raise failure
    return cast(T, result)

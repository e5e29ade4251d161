"""A store of its own for every attempt of a job that ``torchrun --max-restarts`` starts again.

torchrun keeps one store for all attempts, and PyTorch reads it without saying which attempt wrote: a process that is
started again may find the address of a peer that has died, and wait for it (gloo does, for ever or until it gives up).
The number of restarts that torchrun tells is counted on each machine for itself, so that it cannot name the attempt.
"""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store  # torch.distributed's, where their types are declared

_PAUSE = 0.01


def store_of_this_attempt(shared: Store, *, rank: int, world_size: int, timeout: timedelta) -> Store:
    """A part of the store that only the processes of this attempt know.

    Rank 0 asks with a number that nobody knew before, each other rank answers it with a number of its own, and rank 0
    closes the round with all of them: neither side takes what an earlier attempt has left for an answer.

    Args:
        shared: seen by all ranks, and perhaps written by earlier attempts, whose processes have ended.
        timeout: for all to arrive.

    Raises:
        TimeoutError: one did not.
    """
    store, own, end = PrefixStore("hdetr_d2/attempt", shared), secrets.token_hex(8), time.monotonic()
    end += timeout.total_seconds()
    if rank == 0:
        store.set("question", own)
        answers = [_wait_for_answer(store, other, question=own, end=end) for other in range(1, world_size)]
        store.set("round", " ".join([own, *answers]))
        return PrefixStore(own, store)
    while True:
        question = _read(store, "question")
        store.set(f"answer/{rank}", f"{question} {own}")
        first, *others = _read(store, "round").split() or [""]
        if own in others:
            return PrefixStore(first, store)
        _pause(end, "rank 0")


def _wait_for_answer(store: Store, rank: int, *, question: str, end: float) -> str:
    while True:
        answered, _, own = _read(store, f"answer/{rank}").partition(" ")
        if answered == question:
            return own
        _pause(end, f"rank {rank}")


def _read(store: Store, key: str) -> str:
    """What is there now; "" where nothing is, for which ``get`` would wait."""
    return store.get(key).decode() if store.check([key]) else ""


def _pause(end: float, who: str) -> None:
    if time.monotonic() > end:
        raise TimeoutError(f"{who} did not arrive")
    time.sleep(_PAUSE)

"""Reductions, and one process's outcome for all, in two gloo processes and in one."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hdetr_d2.data import DatasetError
from hdetr_d2.distributed import (
    all_over_ranks,
    from_main_process,
    mean_count_over_ranks,
    mean_over_ranks,
    rank,
    sum_over_ranks,
    world_size,
)


def fail() -> None:
    raise DatasetError("train.json: is missing")


def outcomes(own: int) -> dict[str, Any]:
    """What each function says in this process, whose number is ``own``."""
    values = torch.tensor([1.0, 10.0]) * (own + 1)
    found: dict[str, Any] = {
        "world": (rank(), world_size()),
        "sum": sum_over_ranks(values).tolist(),
        "mean": mean_over_ranks(values).tolist(),
        "count": mean_count_over_ranks(own, values).item(),
        "all": all_over_ranks(torch.tensor([True, own == 0, False])).tolist(),
        "main": from_main_process(lambda: f"of process {own}"),
        "untouched": values.tolist(),
    }
    try:
        from_main_process(fail if own == 0 else lambda: None)
    except DatasetError as error:
        found["error"] = (str(error), error.told)
    return found


def _join(own: int, folder: str, answers: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=own, world_size=2)
    answers.put((own, outcomes(own)))
    dist.destroy_process_group()


def test_two_processes_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_join, args=(own, str(tmp_path), answers)) for own in range(2)]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    for own in range(2):
        assert found[own] == {
            "world": (own, 2),
            "sum": [3.0, 30.0],
            "mean": [1.5, 15.0],
            "count": 0.5,
            "all": [1, 0, 0],
            "main": "of process 0",
            "untouched": [1.0 * (own + 1), 10.0 * (own + 1)],
            "error": ("train.json: is missing", own == 1),
        }


def test_one_process_is_its_own_world() -> None:
    assert outcomes(0) == {
        "world": (0, 1),
        "sum": [1.0, 10.0],
        "mean": [1.0, 10.0],
        "count": 0.0,
        "all": [1, 1, 0],
        "main": "of process 0",
        "untouched": [1.0, 10.0],
        "error": ("train.json: is missing", False),
    }


@pytest.mark.parametrize("flags", [[True], [False], [True, False]])
def test_flags_keep_their_shape(flags: list[bool]) -> None:
    assert all_over_ranks(torch.tensor(flags)).tolist() == [int(flag) for flag in flags]

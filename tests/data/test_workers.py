"""Loading processes that fail, are killed, are stopped, or get the signals of a whole job."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from torch.utils.data import Dataset

from hdetr_d2.data import UnusableImageError
from hdetr_d2.data.workers import LoaderStalledError, WatchedLoader
from hdetr_d2.engine.failures import MachineError, failures_explained
from hdetr_d2.processes import is_running


class Numbers(Dataset[Any]):
    """0 to 99; number 5 does something first."""

    def __init__(self, action: Any = None) -> None:
        self.action = action

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> Any:
        if index == 5 and self.action is not None:
            return self.action()
        return index


def loader(action: Any = None, *, num_workers: int = 2, limit: float = 60.0) -> WatchedLoader:
    return WatchedLoader(Numbers(action), batch_size=None, num_workers=num_workers, limit=limit)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_of_a_whole_job_leave_the_loaders_to_the_training(number: str) -> None:
    def signal_self() -> int:
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(0.1)
        return 5

    assert list(loader(signal_self)) == list(range(100))


def test_a_stopped_loading_process_is_named_and_does_not_keep_the_program() -> None:
    start = time.monotonic()
    with pytest.raises(LoaderStalledError, match=r"process \d+ was stopped by a signal .*worker_timeout") as stalled:
        list(loader(stop, limit=1.0))
    assert time.monotonic() - start < 30
    pid = int(str(stalled.value).split("process ")[1].split()[0])
    end = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_slow_image_is_waited_for_within_the_limit() -> None:
    def slow() -> int:
        time.sleep(1.2)
        return 5

    slowly = loader(slow, limit=30.0)
    slowly.timeout = slowly._watch["interval"] = 0.4  # looks several times
    assert list(slowly) == list(range(100))


def test_a_killed_loading_process_is_one_line() -> None:
    with pytest.raises(MachineError, match=r"loading process \d+ died.*num_workers"), failures_explained():
        list(loader(kill))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_users_mistake_comes_from_a_loading_process_as_it_was(num_workers: int) -> None:
    from hdetr_d2.data.workers import Failure

    def fail() -> Failure:
        return Failure(UnusableImageError("5.png: is missing"))

    with pytest.raises(UnusableImageError, match=r"^5\.png: is missing$"):
        list(loader(fail, num_workers=num_workers))

"""Processes of this machine that end together: with their parent, by its signals, and with one error for all."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import torch.multiprocessing as mp

from hdetr_d2.errors import USER_ERROR_EXIT_CODE, UserError
from hdetr_d2.processes import die_with_parent

from .stopping import SIGNALS, STOPPED_EXIT_CODE, is_repeated

GRACE_SECONDS = 10.0
"""How long the others may take to end by themselves when one process has failed."""


class ProcessDiedError(UserError, RuntimeError):
    """A process of the job was killed; the message names it, the signal, and what may help."""


@dataclass
class _Child:
    rank: int
    process: Any
    messages: Connection
    failure: tuple[str, Any] | None = None

    def receive(self) -> None:
        """Take what the process has said about its failure."""
        with contextlib.suppress(EOFError, OSError):
            if self.failure is None and self.messages.poll():
                self.failure = self.messages.recv()


def run_processes(target: Callable[..., None], args: tuple[Any, ...], *, count: int) -> None:
    """Call ``target(index, *args)`` in ``count`` new processes and wait for them.

    They are killed when this process ends, however it ends. `SIGNALS` that come here are passed on; Ctrl-C as SIGTERM,
    so that a terminal, which sends it to all of them, is not heard twice.

    Args:
        target: of a module; as its arguments, picklable.

    Raises:
        UserError: one that a process raised; of several the first, so that a mistake is told once.
        ProcessDiedError: a process was killed.
        RuntimeError: another failure, with the process's traceback.
        SystemExit: the processes exited with a code of their own (`STOPPED_EXIT_CODE`).
    """
    context = mp.get_context("spawn")
    children = []
    for index in range(count):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(sender, os.getpid(), target, index, args))
        process.start()
        sender.close()
        children.append(_Child(index, process, receiver))
    with _signals_passed_on(children) as asked:
        order = _wait_for_all(children)
    _report(order, asked)


def _run(messages: Connection, parent: int, target: Callable[..., None], index: int, args: tuple[Any, ...]) -> None:
    """In the new process."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C comes from the parent, once, as SIGTERM
    try:
        target(index, *args)
    except UserError as error:
        messages.send(("user", _picklable(error)))
        _end(USER_ERROR_EXIT_CODE)
    except Exception:
        messages.send(("fault", traceback.format_exc()))
        _end(1)


def _end(code: int) -> None:
    """Exit without the end of a process group, which would wait for processes that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _picklable(error: UserError) -> UserError:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class that pickle cannot make again; its text is what counts
        return UserError(str(error))
    return error


def _wait_for_all(children: Sequence[_Child]) -> list[_Child]:
    """Wait until all have ended, and end those that outlive a failed one; the failed ones in the order they ended."""
    running = {child.process.sentinel: child for child in children}
    ended: list[_Child] = []
    deadline: float | None = None
    while running:
        pause = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait(list(running), timeout=pause)
        for sentinel in ready:
            child = running.pop(sentinel)
            child.process.join()
            child.receive()
            if child.process.exitcode != 0:
                ended.append(child)
                deadline = deadline or time.monotonic() + GRACE_SECONDS
        if not ready:
            for child in running.values():
                child.process.kill()
            deadline = time.monotonic() + GRACE_SECONDS
    return ended


def _report(failed: Sequence[_Child], asked: Sequence[int]) -> None:
    """Raise what the first failure was; see `run_processes`."""
    told = [child.failure for child in failed if child.failure is not None]
    for kind, error in told:
        if kind == "user":
            raise error
    for child in failed:
        code = child.process.exitcode
        if child.failure is not None:
            raise RuntimeError(f"process {child.rank} failed:\n{child.failure[1]}")
        if code == STOPPED_EXIT_CODE:
            raise SystemExit(code)
        if code < 0 and asked:
            raise SystemExit(128 + asked[0])  # before the training listened for signals
        if code < 0:
            raise ProcessDiedError(
                f"process {child.rank} was killed by {signal.Signals(-code).name}; where nobody did that, the memory "
                "of the machine was used up: use a smaller train.batch_size or dataloader.num_workers, and --resume"
            )
        raise SystemExit(code)


@contextlib.contextmanager
def _signals_passed_on(children: Sequence[_Child]) -> Iterator[list[int]]:
    """The signals that came and were passed on; a second Ctrl-C kills."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    times: dict[int, float] = {}

    def pass_on(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and is_repeated(times, number)
        asked.append(number)
        for child in children:
            if child.process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.process.pid, signal.SIGKILL if again else _passed_as(number))

    before = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        for each, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(each, pass_on)
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler if handler is not None else signal.SIG_DFL)


def _passed_as(number: int) -> int:
    return signal.SIGTERM if number == signal.SIGINT else number

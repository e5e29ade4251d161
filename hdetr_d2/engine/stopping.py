"""Stopping a training by a signal, so that ``--resume`` goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)

STOPPED_EXIT_CODE = 75
"""What a training that a signal stopped, and that can be resumed, exits with (EX_TEMPFAIL: try again)."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""Those that ask for it: what ``kill``, Ctrl-C, and a scheduler before the end of a job's time send."""


REPEAT_SECONDS = 1.0
"""A signal that comes again sooner is the same one: a terminal and a launcher may both send it."""


def is_repeated(times: dict[int, float], number: int) -> bool:
    """Whether a signal has come before, by itself; notes when it first came in ``times``."""
    first = times.setdefault(number, time.monotonic())
    return time.monotonic() - first > REPEAT_SECONDS


class TrainingStopped(SystemExit):
    """A signal stopped the training after a whole step, whose state is saved; ends the program with 75."""

    def __init__(self) -> None:
        super().__init__(STOPPED_EXIT_CODE)


class EvaluationStopped(Exception):
    """A signal came during an evaluation, which gives no results then."""


class StopRequest:
    """Whether a signal has asked this process to stop.

    Attributes:
        signal_name: of the first signal that did; "" while none has.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._times: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def by_any_process(self) -> bool:
        """Whether any process of the job was asked; every process must call this."""
        return any(comm.all_gather(bool(self)))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of `SIGNALS` instead of ending at once; a second Ctrl-C ends at once all the same.

        Signals that are ignored stay so (Ctrl-C in a background job, or where the parent passes it on). Outside of the
        main thread nothing changes, since Python allows no handlers there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.getsignal(each) for each in SIGNALS}
        try:
            for each, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(each, self._note)
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler if handler is not None else signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if is_repeated(self._times, number) and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.signal_name and comm.is_main_process():
            # no logging here: a handler may come in the middle of a line that is being logged
            os.write(2, f"{name}: saving after this step and stopping; Ctrl-C once more stops at once\n".encode())
        self.signal_name = self.signal_name or name


class Stop(HookBase):
    """End the training after a step in which a process was asked to; must be the last hook.

    Args:
        request: of this process.
        saver: writes the checkpoint; a hook with ``save(done)`` and ``saved``.
    """

    def __init__(self, *, request: StopRequest, saver: Any) -> None:
        self.request = request
        self.saver = saver

    def before_train(self) -> None:
        """A signal during the evaluation that a kill had prevented: the state is the checkpoint's."""
        if self.trainer.stopping:
            raise TrainingStopped

    def after_step(self) -> None:
        if not self.trainer.stopping:
            return
        done = self.trainer.iter + 1
        if self.saver.saved != done:
            self.saver.save(done)
        comm.synchronize()  # no process may end the job before the file is complete
        if comm.is_main_process():
            logger.info(
                "stopped by %s after %d of %d steps; --resume goes on from here (exit code %d)",
                self.request.signal_name or "a signal to another process",
                done,
                self.trainer.max_iter,
                STOPPED_EXIT_CODE,
            )
        raise TrainingStopped


class UntilAsked:
    """A loader that ends as soon as this process is asked to stop.

    Args:
        loader: with a length.
    """

    def __init__(self, loader: Any, request: StopRequest) -> None:
        self._loader = loader
        self._request = request

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            if self._request:
                return
            yield batch


class StoppableEvaluator(DatasetEvaluator):
    """An evaluator that gives no results where a process has not evaluated all of its images.

    Args:
        evaluator: the one that works.
    """

    def __init__(self, evaluator: DatasetEvaluator, request: StopRequest) -> None:
        self._evaluator = evaluator
        self._request = request

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> Any:
        """As the evaluator's.

        Raises:
            EvaluationStopped: in every process, if any was asked to stop.
        """
        if self._request.by_any_process():
            raise EvaluationStopped
        return self._evaluator.evaluate()

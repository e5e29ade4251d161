"""Requests that come at about the same time go through the model together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from hdetr_d2.images import Pixels
from hdetr_d2.runtime import Detections

Detect = Callable[[Sequence[Pixels]], list[Detections]]
_Waiting = tuple[Pixels, "asyncio.Future[Detections]"]


class BusyError(Exception):
    """As many requests wait as may."""


class Batcher:
    """A queue before a model, which takes what has come while it worked, up to a batch.

    It waits for no company: a request alone is served at once, and under load batches fill by themselves.

    Args:
        detect: images to detections; runs in a thread of its own, one call at a time.
        batch_size: images of a call at most.
        most_waiting: requests that may wait; more are refused.
    """

    def __init__(self, detect: Detect, *, batch_size: int, most_waiting: int) -> None:
        self._detect = detect
        self._batch_size = batch_size
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(most_waiting)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the next request would be refused."""
        return self._waiting.full()

    def start(self) -> None:
        """Begin to work; called in the event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop after the batch that is worked on."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def detect(self, pixels: Pixels) -> Detections:
        """The detections of an image (H, W, 3) uint8 RGB.

        Raises:
            BusyError: as many wait as may.
        """
        result: asyncio.Future[Detections] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((pixels, result))
        except asyncio.QueueFull:
            raise BusyError from None
        return await result

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._batch_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            wanted = [each for each in batch if not each[1].done()]  # not those who have given up
            if wanted:
                await self._answer(wanted)

    async def _answer(self, batch: list[_Waiting]) -> None:
        images = [pixels for pixels, _ in batch]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._detect, images)
        except Exception as error:  # of the model: the server goes on
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            return
        for (_, result), detections in zip(batch, found, strict=True):
            if not result.done():
                result.set_result(detections)

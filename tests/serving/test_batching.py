"""Requests go through the model together, in limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from hdetr_d2.images import Pixels
from hdetr_d2.runtime import Detections
from hdetr_d2.serving.batching import Batcher, BusyError


def found(score: float) -> Detections:
    return Detections(
        boxes=np.zeros((1, 4), np.float32), scores=np.array([score], np.float32), labels=np.array([0]), names=("a",)
    )


class Model:
    """That says of each image how bright it is, when it may."""

    def __init__(self) -> None:
        self.may_work = threading.Event()
        self.batches: list[int] = []

    def __call__(self, images: Sequence[Pixels]) -> list[Detections]:
        assert self.may_work.wait(60)
        self.batches.append(len(images))
        if any(image[0, 0, 0] == 13 for image in images):
            raise ValueError("thirteen")
        return [found(float(image[0, 0, 0])) for image in images]


def picture(value: int) -> Pixels:
    return np.full((2, 2, 3), value, np.uint8)


async def asked(batcher: Batcher, *values: int) -> list[asyncio.Task[Detections]]:
    """Requests that have come to the queue, in their order."""
    tasks = [asyncio.create_task(batcher.detect(picture(value))) for value in values]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def test_what_comes_while_the_model_works_goes_through_it_together() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model, batch_size=3, most_waiting=4)
        batcher.start()
        first = await asked(batcher, 1)
        others = await asked(batcher, 2, 3, 4, 5)
        assert batcher.full
        with pytest.raises(BusyError):
            await batcher.detect(picture(6))
        others[1].cancel()  # a client that has gone
        await asyncio.sleep(0)
        model.may_work.set()
        answers = await asyncio.gather(*first, *others, return_exceptions=True)
        scores = [None if isinstance(answer, BaseException) else float(answer.scores[0]) for answer in answers]
        assert scores == [1, 2, None, 4, 5]
        assert model.batches == [1, 2, 1]
        await batcher.stop()

    asyncio.run(scenario())


def test_a_model_that_fails_fails_its_batch_alone() -> None:
    async def scenario() -> None:
        model = Model()
        model.may_work.set()
        batcher = Batcher(model, batch_size=1, most_waiting=4)
        batcher.start()
        answers = await asyncio.gather(*await asked(batcher, 13, 7), return_exceptions=True)
        assert isinstance(answers[0], ValueError)
        assert isinstance(answers[1], Detections)
        await batcher.stop()

    asyncio.run(scenario())

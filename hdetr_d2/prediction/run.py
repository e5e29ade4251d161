"""Detecting in many images, and writing as one goes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.images import Pixels
from hdetr_d2.progress import progress

from .inputs import Frame, Inputs
from .writers import Writer

Detect = Callable[[Sequence[Pixels]], list[DetectedInstances]]


@dataclass(frozen=True)
class Summary:
    """What came of it.

    Args:
        images: how many were detected in.
        detections: how many were found.
        broken: of each file that could not be read, why.
    """

    images: int
    detections: int
    broken: tuple[str, ...]


def predict(detect: Detect, inputs: Inputs, writers: Sequence[Writer], *, batch_size: int = 1) -> Summary:
    """Detect in every image and give each result to every writer.

    A file that cannot be read is skipped and counted. The next images are read while the model works on these.

    Args:
        detect: images to detections, such as ``Detector.detect``.
        inputs: the images.
        writers: write them.
        batch_size: images that are detected in at once.
    """
    images = detections = 0
    broken: list[str] = []
    frames = progress(_ahead(iter(inputs)), what="detecting", unit="image", total=inputs.total)
    try:
        while batch := list(itertools.islice(frames, batch_size)):
            good = [frame for frame in batch if frame.pixels is not None]
            broken += [frame.error for frame in batch if frame.pixels is None]
            results = detect([frame.pixels for frame in good if frame.pixels is not None]) if good else []
            for frame, instances in zip(good, results, strict=True):
                images += 1
                detections += len(instances)
                for writer in writers:
                    writer.write(frame, instances)
    finally:
        for writer in writers:
            writer.close()
    return Summary(images, detections, tuple(broken))


def _ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames, the next one read in a thread while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = reader.submit(next, frames, None)
            yield frame

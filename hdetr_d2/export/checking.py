"""Whether a file of ONNX gives what the model gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from hdetr_d2.detector import Detector
from hdetr_d2.images import Pixels
from hdetr_d2.modeling import DETR
from hdetr_d2.prediction import Inputs
from hdetr_d2.runtime.programs import OUTPUTS, open_program

from .formats import runtime_of
from .onnx import TensorDetector, largest_difference
from .source import ExportError

TOLERANCE = 1e-3
"""Of scores and boxes."""
MAX_IMAGES = 16
"""How many images are compared that have no annotations."""


@torch.no_grad()
def difference(model: DETR, path: Path, batches: Iterator[Tensor]) -> float:
    """The `largest_difference` between a model and its file, run by onnxruntime.

    Args:
        model: in evaluation mode on the CPU.
        path: of the file.
        batches: images (B, 3, H, W) as `TensorDetector` takes them.
    """
    program = open_program(path, runtime=runtime_of(path))
    detector = TensorDetector(model=model)
    worst = 0.0
    for images in batches:
        theirs = dict(zip(OUTPUTS, map(torch.from_numpy, program.run(images.numpy()))))
        worst = max(worst, largest_difference(dict(zip(OUTPUTS, detector(images))), theirs))
    return worst


def random_batches(size: tuple[int, int], *, any_size: bool) -> Iterator[Tensor]:
    """Noise: a batch of one image, one of three, and one of another size where the graph takes any."""
    height, width = size
    for batch in (1, 3):
        yield torch.rand(batch, 3, height, width) * 255
    if any_size:
        yield torch.rand(2, 3, height + 64, width + 32) * 255


def read_images(inputs: Inputs) -> list[Pixels]:
    """The first `MAX_IMAGES`, decoded.

    Raises:
        ExportError: one of them cannot be read.
    """
    found = []
    for frame in itertools.islice(inputs, MAX_IMAGES):
        if frame.pixels is None:
            raise ExportError(f"{frame.error}; leave it out of --check, or put a sound image in its place")
        found.append(frame.pixels)
    return found


def images_of(images: Iterable[Pixels], detector: Detector) -> Iterator[Tensor]:
    """Real images, each as a batch of one, at the size that evaluation gives it.

    Args:
        images: each (H, W, 3) uint8 RGB.
        detector: resizes and orders channels.
    """
    for pixels in images:
        yield detector.prepare(pixels)["image"][None].float()

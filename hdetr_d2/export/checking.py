"""Whether a file of ONNX gives what the model gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F

from hdetr_d2.modeling import DETR
from hdetr_d2.prediction import Inputs

from .onnx import OUTPUTS, TensorDetector, largest_difference
from .source import ExportError

TOLERANCE = 1e-3
"""Of scores and boxes."""
MAX_IMAGES = 16
"""How many images of a dataset are compared."""


@torch.no_grad()
def difference(model: DETR, path: Path, batches: Iterator[Tensor]) -> float:
    """The `largest_difference` between a model and its file, run by onnxruntime.

    Args:
        model: in evaluation mode on the CPU.
        path: of the file.
        batches: images (B, 3, H, W) as `TensorDetector` takes them.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    detector = TensorDetector(model=model)
    worst = 0.0
    for images in batches:
        theirs = dict(zip(OUTPUTS, map(torch.from_numpy, session.run(list(OUTPUTS), {"images": images.numpy()}))))
        worst = max(worst, largest_difference(dict(zip(OUTPUTS, detector(images))), theirs))
    return worst


def random_batches(size: tuple[int, int]) -> Iterator[Tensor]:
    """Noise: a batch of one image, and one of three."""
    for batch in (1, 3):
        yield torch.rand(batch, 3, *size) * 255


def images_of(inputs: Inputs, size: tuple[int, int], cfg: DictConfig) -> Iterator[Tensor]:
    """Real images, each as a batch of one, resized to the graph's size; the first `MAX_IMAGES`.

    Args:
        inputs: the images.
        size: (H, W) of the graph.
        cfg: of the model, for its channel order.

    Raises:
        ExportError: one of them cannot be read.
    """
    order = str(OmegaConf.select(cfg, "dataloader.test.mapper.image_format", default="RGB")).upper()
    for frame in itertools.islice(inputs, MAX_IMAGES):
        if frame.pixels is None:
            raise ExportError(frame.error)
        pixels = torch.from_numpy(frame.pixels.copy()).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
        yield resized.flip(1) if order == "BGR" else resized

"""A model as the server sees it, whether PyTorch runs it or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hdetr_d2.errors import UserError
from hdetr_d2.images import Pixels
from hdetr_d2.runtime import Detections, RuntimeDetector
from hdetr_d2.runtime.detections import Floats
from hdetr_d2.runtime.programs import RUNTIMES


class ServeError(UserError, RuntimeError):
    """A model cannot be served; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What the server knows of its model.

    Args:
        name: as it was named.
        class_names: of its classes, in their order.
        category_ids: of the same.
        thresholds: (K,) score of each class, from which on detections are shown unless another one is asked for.
        detect: images (H, W, 3) uint8 RGB to all their detections, whatever their score.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    thresholds: Floats
    detect: Callable[[Sequence[Pixels]], list[Detections]]


def open_model(source: str, *, device: str | None = None, download: bool | None = None) -> ServedModel:
    """Load what is to be served.

    Args:
        source: an .onnx or .xml that ``hdetr-d2 export`` wrote, which needs no PyTorch; or what `Detector.load` takes.
        device: of a model in PyTorch.
        download: as of `Detector.load`.

    Raises:
        UserError: it cannot be loaded.
    """
    if source.lower().endswith(tuple(RUNTIMES)):
        if device not in (None, "cpu"):
            raise ServeError(f"--device {device}: an exported file is served on the CPU; leave the option out")
        runtime = RuntimeDetector(source, score_threshold=0.0)
        return ServedModel(
            name=source,
            class_names=runtime.class_names,
            category_ids=runtime.metadata.category_ids,
            thresholds=np.array(runtime.metadata.score_thresholds, dtype=np.float32),
            detect=runtime.detect,
        )
    return _open_checkpoint(source, device, download)


def _open_checkpoint(source: str, device: str | None, download: bool | None) -> ServedModel:
    from hdetr_d2.detector import Detector

    detector = Detector.load(source, score_threshold=0.0, device=device, download=download)
    description = detector.description
    count = len(description.class_names)

    def detect(pixels: Sequence[Pixels]) -> list[Detections]:
        return [
            Detections(
                boxes=found.pred_boxes.tensor.numpy(),
                scores=found.scores.numpy(),
                labels=found.pred_classes.numpy(),
                names=tuple(found.names),
            )
            for found in detector.detect(pixels)
        ]

    thresholds = description.score_thresholds or (description.score_threshold,) * count
    return ServedModel(
        name=source,
        class_names=description.class_names,
        category_ids=description.category_ids,
        thresholds=np.array(thresholds, dtype=np.float32),
        detect=detect,
    )


def require_working(model: ServedModel) -> None:
    """Detect in a blank image: what does not work is told before there are clients, and the first is served as fast.

    Raises:
        ServeError, UserError: the model cannot detect.
    """
    try:
        model.detect([np.zeros((48, 64, 3), np.uint8)])
    except UserError:
        raise
    except Exception as error:  # whatever a model does
        why = next(iter(str(error).splitlines()), "")
        raise ServeError(f"{model.name}: fails on a blank image ({type(error).__name__}: {why})") from error

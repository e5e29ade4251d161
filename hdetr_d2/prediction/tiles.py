"""Detecting in large images tile by tile, by supervision's ``InferenceSlicer``.

Tiles of one size cover the image, the last of a row or column shifted inside. What is found in several tiles, or in
parts because a tile's border cuts it, is merged by class: two boxes that share half of the smaller one become the box
around both (supervision's NON_MAX_MERGE by intersection over smaller). The package supervision is an extra:
``pip install 'hdetr_d2[tiles]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.detections import named
from hdetr_d2.detector.images import Pixels
from hdetr_d2.errors import UserError

MERGED_FROM = 0.5
"""Of the smaller box's area: two detections of one class that share so much are one object."""

SMALLEST_SIDE = 32


class TilesError(UserError, ValueError):
    """Tiles that cannot be, or the package that cuts them is not installed."""


class DetectsArrays(Protocol):
    """What `Tiled` needs of a detector."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of its classes."""

    def detect(self, pixels: Sequence[Pixels]) -> list[DetectedInstances]:
        """Detect in arrays."""


class Tiled:
    """A detector that works in tiles: a function of arrays as ``Detector.detect`` is.

    Images that fit into one tile are detected in as they are.

    Args:
        detector: finds the objects of a tile.
        side: of a tile, in pixels.
        overlap: of neighbouring tiles, as a part of the side; objects up to this size are whole in one of them.
        max_detections: of an image, the best so many; None for all.
        batch_size: tiles that are detected in at once.

    Raises:
        TilesError: a value is out of bounds, or supervision is not installed.
    """

    def __init__(
        self,
        *,
        detector: DetectsArrays,
        side: int,
        overlap: float = 0.2,
        max_detections: int | None = None,
        batch_size: int = 1,
    ) -> None:
        if side < SMALLEST_SIDE:
            raise TilesError(f"--tile {side}: a tile has at least {SMALLEST_SIDE} pixels a side")
        if not 0 <= overlap < 1:
            raise TilesError(f"--overlap {overlap}: must be at least 0 and less than 1")
        self.detector = detector
        self.side = side
        self._max_detections = max_detections
        # At least a pixel: without any, the last tile of a row is not shifted inside but what is left, maybe a sliver.
        pixels = min(max(1, round(side * overlap)), side - 1)
        self._slicer = _slicer(self._tiles if batch_size > 1 else self._tile, side, pixels, batch_size)

    def __call__(self, pixels: Sequence[Pixels]) -> list[DetectedInstances]:
        """Detect.

        Args:
            pixels: each (H, W, 3) uint8 RGB.

        Returns:
            Of each, best first, in pixels of the whole image.
        """
        plain = [index for index, each in enumerate(pixels) if max(each.shape[:2]) <= self.side]
        found = self.detector.detect([pixels[index] for index in plain]) if plain else []
        of_index = dict(zip(plain, found, strict=True))
        return [of_index[index] if index in of_index else self._sliced(each) for index, each in enumerate(pixels)]

    def _sliced(self, pixels: Pixels) -> DetectedInstances:
        height, width = pixels.shape[:2]
        found = self._slicer(pixels)
        scores = np.zeros(0) if found.confidence is None else found.confidence
        classes = np.zeros(0, int) if found.class_id is None else found.class_id
        order = np.argsort(-scores, kind="stable")[: self._max_detections]
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(torch.from_numpy(_inside(found.xyxy[order], width, height)))
        instances.scores = torch.from_numpy(scores[order].astype(np.float32))
        instances.pred_classes = torch.from_numpy(classes[order].astype(np.int64))
        return named(instances, self.detector.class_names)

    def _tile(self, pixels: Pixels) -> Any:
        return self._tiles([pixels])[0]

    def _tiles(self, pixels: Sequence[Pixels]) -> list[Any]:
        """What is found in tiles, as supervision has it."""
        import supervision

        return [
            supervision.Detections(
                xyxy=found.pred_boxes.tensor.cpu().numpy().astype(np.float32).reshape(-1, 4),
                confidence=found.scores.cpu().numpy(),
                class_id=found.pred_classes.cpu().numpy().astype(int),
            )
            for found in self.detector.detect([np.ascontiguousarray(each) for each in pixels])
        ]


def _inside(boxes: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[np.float32]:
    limits = np.array([width, height, width, height], dtype=np.float32)
    return boxes.astype(np.float32).clip(0, limits)


def _slicer(callback: Any, side: int, overlap: int, batch_size: int) -> Any:
    try:
        import supervision
    except ImportError as error:
        raise TilesError(
            "--tile: the package supervision cuts and merges tiles, and is not installed: pip install 'hdetr_d2[tiles]'"
        ) from error
    return supervision.InferenceSlicer(
        callback=callback,
        slice_wh=side,
        overlap_wh=overlap,
        overlap_filter=supervision.OverlapFilter.NON_MAX_MERGE,
        overlap_metric=supervision.OverlapMetric.IOS,
        iou_threshold=MERGED_FROM,
        batch_size=batch_size,
    )

"""An exported model as a function of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdetr_d2.arguments import check_positive, check_whole, check_within
from hdetr_d2.images import ChannelOrder, Pixels, pixels_of, require_pixels

from .detections import Detections, Floats, names_of, select
from .metadata import KEY, Metadata, RuntimeModelError, resized
from .programs import open_program


class RuntimeDetector:
    """An exported model that is ready to detect: ``RuntimeDetector("model.onnx")("photo.jpg")``.

    It detects what ``hdetr_d2.Detector`` detects with the same model, to rounding.

    Args:
        path: of a file that ``hdetr-d2 export`` wrote.
        score_threshold: detections below it are left out; None is the model's own, which may be one for each class. 0
            keeps all.
        suppress: class-wise non-maximum suppression at this IoU; None for none, as the models are meant.
        max_detections: of an image; None is as many as the model gives.
        runtime: ``"onnxruntime"``, ``"openvino"`` or ``"torch"``; None is that of the file's kind.
        threads: that compute; None is what the runtime takes.

    Raises:
        RuntimeModelError: the file cannot be used.
        ArgumentError: an option cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        score_threshold: float | None = None,
        suppress: float | None = None,
        max_detections: int | None = None,
        runtime: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = os.fsdecode(path)
        _check_options(score_threshold, suppress)
        if max_detections is not None:
            check_whole("RuntimeDetector", 1, max_detections=max_detections)
        program = open_program(path, runtime=runtime, threads=threads)
        if KEY not in program.properties:
            raise RuntimeModelError(f"{self.path}: does not say what model it is; write it with hdetr-d2 export")
        self._run = program.run
        self.metadata = Metadata.from_json(program.properties[KEY], self.path)
        resized(1, 1, self.metadata.resize, self.path)  # before an image comes
        self._score_threshold = score_threshold
        self._suppress = suppress
        self._max_detections = max_detections

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the model's classes, in their order."""
        return self.metadata.class_names

    def __call__(self, images: Any, *, channel_order: ChannelOrder = "rgb") -> Any:
        """Detect.

        Args:
            images: an image or a list of images of any sizes; what an image may be is said at `images.pixels_of`.
            channel_order: of arrays.

        Returns:
            `Detections` in pixels of the image; of a list, a list.

        Raises:
            UserError: an image that cannot be taken or read.
        """
        if isinstance(images, (list, tuple)):
            return self.detect([pixels_of(image, channel_order=channel_order) for image in images])
        return self.detect([pixels_of(images, channel_order=channel_order)])[0]

    def detect(
        self, pixels: Sequence[Pixels], *, score_threshold: float | None = None, suppress: float | None = None
    ) -> list[Detections]:
        """Detect in images that are arrays already; images of one size after resizing run together.

        Args:
            pixels: each (H, W, 3) uint8 RGB.
            score_threshold, suppress: in place of the detector's.

        Raises:
            ArgumentError: an option cannot be.
            ImageInputError: an array is no such image.
            RuntimeModelError: the graph cannot be run on one.
        """
        _check_options(score_threshold, suppress)
        raw = self.raw([self.prepare(each) for each in pixels])
        return [
            self.finish(found, each.shape[:2], score_threshold=score_threshold, suppress=suppress)
            for found, each in zip(raw, pixels, strict=True)
        ]

    def prepare(self, pixels: Pixels) -> Floats:
        """What the graph is given of an image (H, W, 3) uint8 RGB: (3, h, w), resized, in its order of channels.

        Raises:
            ImageInputError: it is no such array.
        """
        require_pixels(pixels)
        height, width = resized(pixels.shape[0], pixels.shape[1], self.metadata.resize, self.path)
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        array: npt.NDArray[np.uint8] = np.asarray(image)
        if self.metadata.channel_order == "bgr":
            array = array[..., ::-1]
        return np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32)

    def raw(self, inputs: Sequence[Floats]) -> list[tuple[npt.NDArray[Any], ...]]:
        """What the graph gives of each input: scores (D,), labels (D,) and boxes (D, 4) in parts of the image."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, each in enumerate(inputs):
            by_size.setdefault(each.shape, []).append(index)
        found: dict[int, tuple[npt.NDArray[Any], ...]] = {}
        for indices in by_size.values():
            outputs = self._run(np.stack([inputs[index] for index in indices]))
            found.update((index, tuple(output[row] for output in outputs)) for row, index in enumerate(indices))
        return [found[index] for index in range(len(inputs))]

    def finish(
        self,
        raw: tuple[npt.NDArray[Any], ...],
        size: tuple[int, ...],
        *,
        score_threshold: float | None = None,
        suppress: float | None = None,
    ) -> Detections:
        """The detections that are asked for out of what the graph gave of an image.

        Args:
            raw: as `raw` gives it.
            size: (H, W) of the image.
            score_threshold, suppress: in place of the detector's.
        """
        scores, labels, parts = raw
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise RuntimeModelError(
                f"{self.path}: detects classes {labels.min()} to {labels.max()} and names {len(self.class_names)}; "
                "export it again"
            )
        height, width = size
        boxes: Floats = parts * np.array([width, height, width, height], dtype=np.float32)
        threshold = self._score_threshold if score_threshold is None else score_threshold
        thresholds = np.array(self.metadata.score_thresholds, dtype=np.float32)
        chosen = select(
            scores,
            labels,
            boxes,
            thresholds=thresholds if threshold is None else np.full_like(thresholds, threshold),
            suppress=self._suppress if suppress is None else suppress,
            max_detections=self._max_detections,
        )
        names = names_of(labels[chosen], self.class_names)
        return Detections(boxes=boxes[chosen], scores=scores[chosen], labels=labels[chosen], names=names)


def _check_options(score_threshold: float | None, suppress: float | None) -> None:
    if score_threshold is not None:
        check_within("RuntimeDetector", 0, 1, score_threshold=score_threshold)
    if suppress is not None:
        check_positive("RuntimeDetector", suppress=suppress)
        check_within("RuntimeDetector", 0, 1, suppress=suppress)

"""Detections with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor
from torchvision.ops import batched_nms


class ClassNames(list[str]):
    """A list that ``Instances`` can take some of, by a slice or a tensor of positions or of truth values."""

    def __getitem__(self, item: Any) -> Any:
        """A name; of a slice or tensor, names."""
        if isinstance(item, slice):
            return ClassNames(super().__getitem__(item))
        if isinstance(item, Tensor) and item.dim():
            positions = item.nonzero()[:, 0] if item.dtype == torch.bool else item
            return ClassNames(super(ClassNames, self).__getitem__(index) for index in positions.tolist())
        return super().__getitem__(int(item))


class DetectedInstances(Instances):
    """Detectron2's ``Instances`` of one image, with names of classes.

    Fields: ``pred_boxes`` (XYXY pixels), ``scores``, ``pred_classes`` and ``names`` (a list of class names, one a
    detection), best first.
    """

    def __getitem__(self, item: Any) -> DetectedInstances:
        """Some of them, as Detectron2's."""
        return _copy(super().__getitem__(item))

    def to(self, *args: Any, **kwargs: Any) -> DetectedInstances:
        """On another device."""
        return _copy(super().to(*args, **kwargs))

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, with the names under ``data["class_name"]``.

        Raises:
            ImportError: the package supervision is not installed.
        """
        import numpy as np
        import supervision as sv

        return sv.Detections(
            xyxy=self.pred_boxes.tensor.cpu().numpy().astype(np.float32).reshape(-1, 4),
            confidence=self.scores.cpu().numpy(),
            class_id=self.pred_classes.cpu().numpy().astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )


def _copy(instances: Instances) -> DetectedInstances:
    copied = DetectedInstances(instances.image_size)
    for name, value in instances.get_fields().items():
        copied.set(name, value)
    return copied


def named(instances: Instances, class_names: Sequence[str]) -> DetectedInstances:
    """Add ``names`` to the detections of a model."""
    detected = _copy(instances)
    detected.set("names", ClassNames(class_names[index] for index in instances.pred_classes.tolist()))
    return detected


def select(
    instances: Instances,
    *,
    thresholds: Tensor,
    classes: Tensor | None = None,
    suppress: float | None = None,
    max_detections: int | None = None,
) -> Instances:
    """The detections that are asked for, best first.

    Args:
        instances: of one image.
        thresholds: (K,) score from which on a detection of each class is kept.
        classes: (C,) int64, the classes that are kept; None for all.
        suppress: class-wise non-maximum suppression at this IoU; None for none.
        max_detections: the best so many.
    """
    keep = instances.scores >= thresholds.to(instances.scores.device)[instances.pred_classes]
    if classes is not None:
        keep &= (instances.pred_classes[:, None] == classes.to(keep.device)).any(1)
    chosen = instances[keep]
    chosen = chosen[chosen.scores.sort(descending=True, stable=True).indices]
    if suppress is not None:
        chosen = chosen[batched_nms(chosen.pred_boxes.tensor.float(), chosen.scores, chosen.pred_classes, suppress)]
    return chosen if max_detections is None else chosen[slice(0, max_detections)]

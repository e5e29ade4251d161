"""Measuring a model on a dataset of any layout, classes compared by their names."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hdetr_d2.annotations.layouts import CocoSplit, prepare_dataset
from hdetr_d2.data import load_dataset_dicts, read_annotation_file, read_rgb_image
from hdetr_d2.description import ModelDescription
from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.images import Pixels
from hdetr_d2.errors import UserError
from hdetr_d2.evaluation.measuring import Measurement, prepare
from hdetr_d2.evaluation.metrics import Metrics
from hdetr_d2.progress import progress


class ModelAndDataError(UserError, ValueError):
    """A model cannot be measured on a dataset; the message says which classes or splits do not fit."""


class Described(Protocol):
    """A model with its classes."""

    @property
    def description(self) -> ModelDescription:
        """Of the model."""

    @property
    def class_names(self) -> Sequence[str]:
        """Of the model's classes, in their order."""


class Detecting(Described, Protocol):
    """What can be measured: a `Detector`, or another runtime of the same model."""

    def detect(self, pixels: Sequence[Pixels]) -> list[DetectedInstances]:
        """As `Detector.detect`."""


def evaluate_model(
    detector: Detecting, path: str, *, split: str = "val", wanted: Measurement | None = None, batch_size: int = 1
) -> Mapping[str, Metrics]:
    """Detect in every image of a split and compare with its annotations.

    Args:
        detector: with ``score_threshold=0``, as average precision wants all detections.
        path: the dataset, as `prepare_dataset` takes it.
        split: "val", "test" or "train"; a dataset of one split has it under every name.
        wanted: which metrics; None is those of the dataset's own format.
        batch_size: images of one size that are detected in at once.

    Raises:
        UserError: the dataset cannot be read, or has other classes than the model, or options do not go together.
    """
    with tempfile.TemporaryDirectory() as folder:
        part = find_split(path, split, folder)
        wanted = wanted or Measurement()
        with part.told():
            measured = prepare(part.json, wanted)
            return measured(detect_all(detector, part, batch_size=batch_size, invalid=wanted.invalid))


def find_split(path: str, split: str, folder: str) -> CocoSplit:
    """A split of a dataset of any layout; of a dataset of one split that one.

    Args:
        path: the dataset.
        split: its name.
        folder: for annotations that must be converted.

    Raises:
        ModelAndDataError: there is no such split.
        UserError: the dataset cannot be read.
    """
    dataset = prepare_dataset(path, folder, need_validation=False)
    if split in dataset.splits:
        return dataset.splits[split]  # type: ignore[index]  # names of splits
    if len(dataset.splits) == 1:
        return next(iter(dataset.splits.values()))
    raise ModelAndDataError(f"{path}: there is no {split} split; there is {', '.join(dataset.splits)}")


def detect_all(
    detector: Detecting,
    part: CocoSplit,
    *,
    batch_size: int = 1,
    category_of: Mapping[int, int] | None = None,
    invalid: str = "error",
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """All detections of a split in COCO's results format, with the category ids of its file.

    Args:
        detector: gives the detections.
        part: the split.
        batch_size: images of one size that are detected in at once.
        category_of: the file's category id of each class that is kept; None compares the classes' names.
        invalid: what becomes of faulty annotations, "error" or "drop".
        quiet: whether nothing is said of how far it is.

    Raises:
        ModelAndDataError: the file has classes that the model does not know.
        DatasetError: the file or an image cannot be read.
    """
    if category_of is None:
        category_of = category_ids(detector, part)
    records = load_dataset_dicts(json_file=part.json, image_root=part.images, invalid=invalid, training=False)
    results: list[dict[str, Any]] = []
    waiting = iter(records) if quiet else progress(records, what="evaluating", unit="image", total=len(records))
    while batch := list(itertools.islice(waiting, batch_size)):
        pixels = [
            read_rgb_image(record["file_name"], height=record["height"], width=record["width"]) for record in batch
        ]
        for record, instances in zip(batch, detector.detect(pixels), strict=True):
            boxes, scores = instances.pred_boxes.tensor.tolist(), instances.scores.tolist()
            for (x0, y0, x1, y1), score, label in zip(boxes, scores, instances.pred_classes.tolist(), strict=True):
                if label in category_of:
                    results.append(
                        {
                            "image_id": record["image_id"],
                            "category_id": category_of[label],
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "score": score,
                        }
                    )
    return results


def category_ids(detector: Described, part: CocoSplit) -> dict[int, int]:
    """The file's category id of each class of the model that it has.

    Raises:
        ModelAndDataError: the file has a class that the model does not know.
    """
    categories = read_annotation_file(part.json).categories
    known: Sequence[str] = detector.class_names
    if not detector.description.names_known and len(known) == len(categories.ids):
        return dict(enumerate(categories.ids))
    missing = [name for name in categories.names if name not in known]
    if missing:
        raise ModelAndDataError(
            f"{part.json}: has classes that the model does not know, {', '.join(missing[:5])}; the model knows "
            f"{', '.join(known[:10])}"
        )
    return {known.index(name): identity for name, identity in zip(categories.names, categories.ids, strict=True)}

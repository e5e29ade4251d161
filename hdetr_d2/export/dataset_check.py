"""Whether an exported file is as precise as its model on annotated images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.structures import Boxes, Instances

from hdetr_d2.annotations.layouts import CocoSplit, UnknownLayoutError, recognise
from hdetr_d2.data import load_dataset_dicts, read_annotation_file
from hdetr_d2.description import ModelDescription
from hdetr_d2.detector import DetectedInstances
from hdetr_d2.detector.detections import named
from hdetr_d2.evaluation.measuring import Measurement, measure
from hdetr_d2.images import Pixels
from hdetr_d2.prediction.evaluation import Detecting, detect_all, find_split
from hdetr_d2.runtime import RuntimeDetector

from .formats import runtime_of
from .source import ExportError

_DESCRIPTIONS = (".json", ".yaml", ".yml", ".xml")


@dataclass(frozen=True)
class Precisions:
    """AP in percent on the same images.

    Args:
        model: of the model in PyTorch.
        file: of the exported file.
        images: how many there were.
    """

    model: float
    file: float
    images: int

    @property
    def difference(self) -> float:
        """In points, whichever is better."""
        return abs(self.model - self.file)

    @property
    def loss(self) -> float:
        """Points that the file is behind."""
        return self.model - self.file


class RuntimeOfModel:
    """An exported file in the place of the `Detector` of its model.

    Args:
        path: of the file.
        description: of the model.
    """

    def __init__(self, path: Path, description: ModelDescription) -> None:
        self.description = description
        self._runtime = RuntimeDetector(path, score_threshold=0.0, runtime=runtime_of(path))

    @property
    def class_names(self) -> Sequence[str]:
        """Of the model's classes."""
        return self.description.class_names

    def detect(self, pixels: Sequence[Pixels]) -> list[DetectedInstances]:
        """As of `Detector`."""
        results = []
        for image, found in zip(pixels, self._runtime.detect(pixels), strict=True):
            instances = Instances((image.shape[0], image.shape[1]))
            instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
            instances.scores = torch.from_numpy(found.scores)
            instances.pred_classes = torch.from_numpy(found.labels)
            results.append(named(instances, self.class_names))
        return results


def is_dataset(path: str) -> bool:
    """Whether a path is annotated images, of any layout, and not images alone.

    Raises:
        LayoutError: it is a dataset, and cannot be read.
    """
    if Path(path).suffix.lower() in _DESCRIPTIONS:
        return True
    try:
        return bool(os.path.isdir(path) and recognise(path).splits)
    except UnknownLayoutError:
        return False


def some_images(
    data: str, images: int, folder: str, *, split: str = "val", option: str = "--check-images"
) -> CocoSplit:
    """Some images of a dataset: those at equal distances in the list of a split, where it has that one.

    Args:
        data: the dataset, as `prepare_dataset` takes it.
        images: how many.
        folder: for annotations that must be written.
        split: of the dataset.
        option: the user's, which says how many.

    Raises:
        UserError: the dataset cannot be read, or these have no object.
    """
    folder = os.path.join(folder, split)
    os.makedirs(folder, exist_ok=True)
    whole = find_split(data, split, folder)
    with whole.told():
        read_annotation_file(whole.json)  # which tells what is wrong with the lists that are thinned
        part = thinned(whole, images, Path(folder) / "some.json")
    with part.told():
        table = read_annotation_file(part.json)
        if not len(table.annotation_ids):
            raise ExportError(
                f"{data}: the {len(table.image_ids)} images that would be compared have no object; give {option} more"
            )
        load_dataset_dicts(json_file=part.json, image_root=part.images, training=False)
    return part


def number_of_images(part: CocoSplit) -> int:
    """That a split has."""
    return len(read_annotation_file(part.json).image_ids)


def thinned(part: CocoSplit, images: int, to: Path) -> CocoSplit:
    """A split with so many of its images, at equal distances in its list; itself where it has no more.

    Args:
        part: the split.
        images: how many to keep.
        to: where the annotations of these are written.
    """
    content = json.loads(Path(part.json).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    found = content["images"]
    if len(found) <= images:
        return part
    kept = [found[place * len(found) // images] for place in range(images)]
    ids = {image["id"] for image in kept}
    of_kept = [each for each in content.get("annotations", []) if each["image_id"] in ids]
    to.write_text(json.dumps({**content, "images": kept, "annotations": of_kept}), encoding="utf-8")
    return CocoSplit(to, part.images, part.source or part.json)


def precision_of(detector: Detecting, part: CocoSplit, *, quiet: bool = False) -> float:
    """AP in percent on the images of a split."""
    metrics = measure(part.json, detect_all(detector, part, quiet=quiet), Measurement())
    return float(next(iter(metrics.values()))["AP"])

"""What is kept of detections: pictures, videos, json, crops, text files."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from hdetr_d2.detector import DetectedInstances
from hdetr_d2.output import write_atomically
from hdetr_d2.visualization import DrawnBox, draw_boxes

from .inputs import Frame

SAVABLE = ("pictures", "video", "json", "crops", "txt")
FOLDERS = ("pictures", "videos", "crops", "labels")
"""Of the output folder, in which files about images are."""
RESULTS_FILE = "detections.json"
IMAGES_FILE = "images.json"


class Writer(ABC):
    """Writes what a model found in one image after another."""

    @abstractmethod
    def write(self, frame: Frame, instances: DetectedInstances) -> None:
        """Take the detections of an image."""

    def close(self) -> None:  # noqa: B027  (most writers have nothing left to do)
        """After the last one."""


class PictureWriter(Writer):
    """Each image with its detections drawn, as JPEG below ``pictures/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pictures"

    def write(self, frame: Frame, instances: DetectedInstances) -> None:
        """Draw and save."""
        path = _below(self.folder, _frame_stem(frame), ".jpg")
        drawn(frame, instances).save(path, quality=92)


class VideoWriter(Writer):
    """Each video or camera with its detections drawn, below ``videos/``; single images are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "videos"
        self._open: dict[str, Any] = {}

    def write(self, frame: Frame, instances: DetectedInstances) -> None:
        """Append a frame."""
        import cv2

        if frame.frames_per_second is None:
            return
        image = np.asarray(drawn(frame, instances))
        if frame.stem not in self._open:
            path = _below(self.folder, frame.stem, ".mp4")
            size = (image.shape[1], image.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._open[frame.stem] = cv2.VideoWriter(str(path), code, frame.frames_per_second, size)
        self._open[frame.stem].write(np.ascontiguousarray(image[..., ::-1]))

    def close(self) -> None:
        """Finish the files."""
        for video in self._open.values():
            video.release()


class JsonWriter(Writer):
    """All detections in COCO's results format, ``detections.json``.

    Ids, names and sizes of the images, and the categories, are in ``images.json``.

    Args:
        folder: for both.
        category_ids: of the model's classes.
        class_names: of the same.
        image_ids: by file name, where an annotation file gives them; others are numbered from 1.
    """

    def __init__(
        self,
        folder: Path,
        *,
        category_ids: Sequence[int],
        class_names: Sequence[str],
        image_ids: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = folder
        self.category_ids = list(category_ids)
        self.class_names = list(class_names)
        self.image_ids = dict(image_ids or {})
        self._next = max(self.image_ids.values(), default=0) + 1
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []

    def write(self, frame: Frame, instances: DetectedInstances) -> None:
        """Note an image and its detections."""
        identity = self.image_ids.get(frame.name, self.image_ids.get(Path(frame.name).name))
        if identity is None:
            identity, self._next = self._next, self._next + 1
        height, width = instances.image_size
        self._images.append({"id": identity, "file_name": frame.name, "width": width, "height": height})
        boxes, scores = instances.pred_boxes.tensor.tolist(), instances.scores.tolist()
        for (x0, y0, x1, y1), score, label in zip(boxes, scores, instances.pred_classes.tolist(), strict=True):
            self._results.append(
                {
                    "image_id": identity,
                    "category_id": self.category_ids[label],
                    "bbox": [round(x0, 3), round(y0, 3), round(x1 - x0, 3), round(y1 - y0, 3)],
                    "score": round(score, 6),
                }
            )

    def close(self) -> None:
        """Write both files."""
        categories = [
            {"id": identity, "name": name} for identity, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        _write_json(self.folder / RESULTS_FILE, self._results)
        _write_json(self.folder / IMAGES_FILE, {"images": self._images, "categories": categories})


class CropWriter(Writer):
    """Each detection cut out, below ``crops/<class>/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "crops"

    def write(self, frame: Frame, instances: DetectedInstances) -> None:
        """Cut out and save."""
        assert frame.pixels is not None
        image = Image.fromarray(frame.pixels)
        for number, (box, name) in enumerate(zip(instances.pred_boxes.tensor.tolist(), instances.names, strict=True)):
            left, top, right, bottom = round(box[0]), round(box[1]), round(box[2]), round(box[3])
            if right > left and bottom > top:
                path = _below(self.folder / _safe(name), f"{_frame_stem(frame)}_{number:03d}", ".jpg")
                image.crop((left, top, right, bottom)).save(path, quality=92)


class TextWriter(Writer):
    """A text file an image below ``labels/``: class, centre, size in parts of the image, and score (YOLO's format)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "labels"

    def write(self, frame: Frame, instances: DetectedInstances) -> None:
        """Write the file, an empty one where nothing was found."""
        height, width = instances.image_size
        lines = []
        boxes, scores = instances.pred_boxes.tensor.tolist(), instances.scores.tolist()
        for (x0, y0, x1, y1), score, label in zip(boxes, scores, instances.pred_classes.tolist(), strict=True):
            centre = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
            size = ((x1 - x0) / width, (y1 - y0) / height)
            lines.append(f"{label} {centre[0]:.6f} {centre[1]:.6f} {size[0]:.6f} {size[1]:.6f} {score:.6f}\n")
        _below(self.folder, _frame_stem(frame), ".txt").write_text("".join(lines))


def make_writers(
    kinds: Collection[str],
    folder: Path,
    *,
    category_ids: Sequence[int],
    class_names: Sequence[str],
    image_ids: Mapping[str, int] | None = None,
) -> list[Writer]:
    """The writers of some of `SAVABLE`."""
    simple: dict[str, Callable[[Path], Writer]] = {
        "pictures": PictureWriter,
        "video": VideoWriter,
        "crops": CropWriter,
        "txt": TextWriter,
    }
    writers: list[Writer] = [simple[kind](folder) for kind in SAVABLE if kind in kinds and kind in simple]
    if "json" in kinds:
        writers.append(JsonWriter(folder, category_ids=category_ids, class_names=class_names, image_ids=image_ids))
    return writers


def drawn(frame: Frame, instances: DetectedInstances) -> Image.Image:
    """The image with its detections, at its own size."""
    assert frame.pixels is not None
    boxes = [
        DrawnBox((box[0], box[1], box[2], box[3]), label, f"{name} {score:.2f}")
        for box, label, name, score in zip(
            instances.pred_boxes.tensor.tolist(),
            instances.pred_classes.tolist(),
            instances.names,
            instances.scores.tolist(),
            strict=True,
        )
    ]
    image = Image.fromarray(frame.pixels)
    return draw_boxes(image, boxes, long_side=max(image.size))


def _frame_stem(frame: Frame) -> str:
    number = frame.name.rpartition("#")[2] if frame.frames_per_second is not None else ""
    return f"{frame.stem}/{int(number):06d}" if number else frame.stem


def _below(folder: Path, stem: str, suffix: str) -> Path:
    path = folder / f"{stem}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _safe(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_ ." else "_" for character in name).strip(". ")


def _write_json(path: Path, content: Any) -> None:
    encoded = json.dumps(content).encode()
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(file: IO[bytes]) -> None:
        file.write(encoded)

    write_atomically(os.fspath(path), write)

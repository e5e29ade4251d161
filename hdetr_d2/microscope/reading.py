"""What a training recorded, as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hdetr_d2.errors import UserError

from .chunk import Columns
from .recorder import FOLDER, PART


class RecordingError(UserError, ValueError):
    """A run that has no recording, or a damaged one."""


@dataclass(frozen=True)
class Recording:
    """Everything that a run recorded, in the order of steps.

    A row of ``objects`` is one annotation in one step, a row of ``images`` one image; ``MatchRecorder`` says what their
    columns are. Boxes are cxcywh in [0, 1] of the augmented image.

    Args:
        slots: the layers, by the endings of their losses' names: ``""`` is the last one of the primary group.
        objects: ``row`` (into ``images``), ``annotation``, ``label``, of each slot ``query``, ``cost``, ``count`` and
            ``price``, and of the last layer ``iou``, ``score``, ``box``, ``other``, ``relabelled``.
        images: ``image_id``, ``step``, ``to_file``, ``confidence``, ``unclaimed_class``, ``_score`` and ``_box``.
    """

    slots: tuple[str, ...]
    objects: Columns
    images: Columns

    @property
    def primary(self) -> list[int]:
        """The slots of the primary group's layers, the first layer first."""
        return [i for i, name in enumerate(self.slots) if not name or name[1:].isdigit()]

    @property
    def last(self) -> int:
        """The slot of its last layer."""
        return self.slots.index("")

    @property
    def is_two_stage(self) -> bool:
        """Whether queries are the best proposals of an image, so that their numbers are ranks."""
        return "_enc" in self.slots

    def step_of_objects(self) -> NDArray[np.int64]:
        """(R,) the step of each row of ``objects``."""
        steps: NDArray[np.int64] = self.images["step"][self.objects["row"]].astype(np.int64)
        return steps


_OF_IMAGES = ("image_id", "step", "to_file", "confidence", "unclaimed_class", "unclaimed_score", "unclaimed_box")


def read_recording(run: str | os.PathLike[str]) -> Recording:
    """Read what ``train.microscope=True`` has left in a run's folder.

    Raises:
        RecordingError: there is none, or a file of it is damaged.
    """
    folder = Path(run) / FOLDER
    files = sorted(path for path in folder.iterdir() if PART.match(path.name)) if folder.is_dir() else []
    if not files:
        raise RecordingError(f"{run} has no recording of matches; train with train.microscope=True")
    parts: list[Columns] = []
    for path in files:
        try:
            with np.load(path, allow_pickle=False) as content:
                parts.append({name: content[name] for name in content.files})
        except (OSError, ValueError, BadZipFile, KeyError) as error:
            raise RecordingError(f"{path} is damaged ({error}); delete it to leave its steps out") from error
    slots = tuple(str(name) for name in parts[0]["slots"])
    if any(tuple(map(str, part["slots"])) != slots for part in parts):
        raise RecordingError(f"{folder} holds recordings of several models; train into a folder of its own")
    return Recording(slots, *_in_order(parts))


def _in_order(parts: Sequence[Columns]) -> tuple[Columns, Columns]:
    """Objects and images of all parts, by step."""
    first = np.cumsum([0, *(len(part["step"]) for part in parts)])
    for part, offset in zip(parts, first):
        part["row"] = part["row"] + offset
    names = [name for name in parts[0] if name != "slots"]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    order = np.argsort(whole["step"], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    images = {name: whole.pop(name)[order] for name in _OF_IMAGES}
    whole["row"] = place[whole["row"]]
    by_row = np.argsort(whole["row"], kind="stable")
    return {name: values[by_row] for name, values in whole.items()}, images

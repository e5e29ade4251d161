"""What ``predict`` prepares before the first image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hdetr_d2.detector import Detector
from hdetr_d2.output import OutputError

from .inputs import Inputs
from .run import Detect
from .writers import FOLDERS


def prepare_folder(folder: Path) -> Path:
    """Make a folder, and make sure that files can be written there.

    Raises:
        OutputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {folder}: the folder cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"--output {folder}: the folder cannot be written to")
    return folder


def refuse_own_input(folder: Path, inputs: Inputs) -> None:
    """Refuse to write where is read from: the next call would detect in what this one has drawn, or lose its input.

    Args:
        folder: that is written to.
        inputs: what is read.

    Raises:
        OutputError: the folder is one that was named, or is in one, or has some of the files.
    """
    output = folder.resolve()
    for name in inputs.folders:
        if Path(os.path.expanduser(name)).resolve() in (output, *output.parents):
            raise OutputError(
                f"--output {folder}: is within {name}, which is detected in; choose a folder outside of it"
            )
    own = [output / name for name in FOLDERS]
    for image in (*(path for path, _ in inputs.images), *inputs.videos):
        place = Path(image).resolve()
        if any(part in place.parents for part in own):
            raise OutputError(
                f"--output {folder}: {image} is detected in, and could be overwritten; choose another folder"
            )


def image_ids_of(annotations: Path | None) -> dict[str, int]:
    """The ids of an annotation file's images by file name; none without a file."""
    if annotations is None:
        return {}
    from hdetr_d2.data import read_annotation_file

    table = read_annotation_file(annotations)
    return {name: int(identity) for names, identity in zip(table.image_names, table.image_ids) for name in names[:1]}


def make_detect(
    model: str, *, tile: int | None, overlap: float, batch_size: int, **options: Any
) -> tuple[Detector, Detect]:
    """The detector, and its function of images, which works in tiles where a tile's size is given."""
    detector = Detector.load(model, **options)
    if tile is None:
        return detector, detector.detect
    from .tiles import Tiled

    most = options.get("max_detections")
    tiled = Tiled(detector=detector, side=tile, overlap=overlap, max_detections=most, batch_size=batch_size)
    return detector, tiled

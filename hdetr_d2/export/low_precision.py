"""Writing a file in low precision, and what it gives and costs beside float32."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from hdetr_d2.annotations.layouts import CocoSplit
from hdetr_d2.data import load_dataset_dicts, read_rgb_image
from hdetr_d2.description import ModelDescription
from hdetr_d2.prediction.evaluation import detect_all
from hdetr_d2.runtime import RuntimeDetector
from hdetr_d2.runtime.programs import open_program

from .blocks import weighted_blocks
from .dataset_check import RuntimeOfModel, precision_of, thinned
from .formats import runtime_of
from .lowering import Float16, Images, Int8, Lowering, Precision
from .sensitivity import Choice, choose

TOLERANCES: dict[Precision, float] = {"float32": 0.05, "float16": 0.1, "int8": 0.5}
"""Points of AP that a file may lose."""
IMAGES_OF_A_BLOCK = 16
"""On how many images each block is tried alone."""
DETECTIONS_OF_AN_IMAGE = 10
"""How many of the float32 file's detections another precision should find again."""
TIMED_IMAGES = 20

Say = Callable[[str], None]


def write_lowered(
    source: Path,
    output: Path,
    precision: Precision,
    *,
    description: ModelDescription,
    calibration: CocoSplit | None,
    say: Say,
) -> Choice:
    """Write a file again in low precision.

    Args:
        source: the file in float32, with its metadata.
        output: the new file.
        precision: of it.
        description: of the model.
        calibration: annotated images on which ranges are taken and precision is measured, preferably of the training;
            None writes everything in low precision, and is for float16 alone.
        say: is told what is done.

    Raises:
        ExportError: nothing can be in this precision.
    """
    import onnx

    blocks = weighted_blocks(onnx.load(str(source), load_external_data=False))
    lowering = Float16(source) if calibration is None else _lowering(source, precision, calibration)
    if calibration is None:
        choice = Choice(lowered=blocks)
    else:
        with tempfile.TemporaryDirectory() as folder:
            trial = _Trial(lowering, source, description, calibration, Path(folder))
            choice = choose(
                blocks,
                precision=trial.precision,
                agreement=trial.agreement,
                at_least=trial.reference - TOLERANCES[precision],
                say=say,
            )
    lowering.write(output, choice.nodes)
    kept = f", {', '.join(choice.kept)} in float32" if choice.kept else ""
    say(f"{len(choice.lowered)} of {len(blocks)} blocks are in {precision}{kept}")
    return choice


def _lowering(source: Path, precision: Precision, calibration: CocoSplit) -> Lowering:
    return Float16(source) if precision == "float16" else Int8(source, inputs_of(source, calibration))


def inputs_of(path: Path, part: CocoSplit, *, most: int | None = None) -> Images:
    """The images of a split, or the first so many, as an exported file takes them: each (1, 3, H, W)."""
    detector = RuntimeDetector(path, runtime=runtime_of(path))
    records = load_dataset_dicts(json_file=part.json, image_root=part.images, training=False)[:most]
    images = (read_rgb_image(record["file_name"], height=record["height"], width=record["width"]) for record in records)
    return [detector.prepare(image)[None] for image in images]


class _Trial:
    """Measures files with some nodes in low precision.

    Args:
        lowering: writes them.
        source: the file in float32.
        description: of the model.
        part: annotated images.
        folder: for files.
    """

    def __init__(
        self, lowering: Lowering, source: Path, description: ModelDescription, part: CocoSplit, folder: Path
    ) -> None:
        self._lowering, self._description, self._part, self._folder = lowering, description, part, folder
        self._source = RuntimeOfModel(source, description)
        self._found_again: CocoSplit | None = None
        self.reference = precision_of(self._source, part)

    def precision(self, nodes: Sequence[str]) -> float:
        """AP on the annotated images."""
        return precision_of(self._written(nodes), self._part, quiet=True)

    def agreement(self, nodes: Sequence[str]) -> float:
        """AP where the annotations are what float32 detects."""
        if self._found_again is None:
            part = thinned(self._part, IMAGES_OF_A_BLOCK, self._folder / "few.json")
            self._found_again = as_annotations(self._source, part, self._folder / "found.json")
        return precision_of(self._written(nodes), self._found_again, quiet=True)

    def _written(self, nodes: Sequence[str]) -> RuntimeOfModel:
        path = self._folder / "trial.onnx"
        self._lowering.write(path, nodes)
        return RuntimeOfModel(path, self._description)


def as_annotations(detector: RuntimeOfModel, part: CocoSplit, to: Path) -> CocoSplit:
    """The best detections in each image of a split, as if they were its annotations."""
    of_image: dict[int, int] = {}
    annotations: list[dict[str, Any]] = []
    for found in sorted(detect_all(detector, part, quiet=True), key=lambda each: -each["score"]):
        image = found["image_id"]
        of_image[image] = of_image.get(image, 0) + 1
        if of_image[image] <= DETECTIONS_OF_AN_IMAGE and min(found["bbox"][2:]) > 0:
            area = found["bbox"][2] * found["bbox"][3]
            annotations.append({**found, "id": len(annotations) + 1, "area": area, "iscrowd": 0})
    content = json.loads(Path(part.json).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    to.write_text(json.dumps({**content, "annotations": annotations}), encoding="utf-8")
    return CocoSplit(to, part.images, part.source or part.json)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A row of the table.

    Args:
        name: of what was measured.
        ap: in percent.
        size: of its file in bytes, with its weights where these are beside it.
        milliseconds: that it takes for an image alone; the median.
    """

    name: str
    ap: float
    size: int
    milliseconds: float


def compare_files(files: Mapping[str, Path], description: ModelDescription, part: CocoSplit) -> list[Compared]:
    """Measure files of one model beside one another; they take turns with each image, so that they share what slows."""
    inputs = inputs_of(next(iter(files.values())), part, most=TIMED_IMAGES)
    times = _times([open_program(path, runtime=runtime_of(path)).run for path in files.values()], inputs)
    return [
        Compared(
            name=name,
            ap=precision_of(RuntimeOfModel(path, description), part),
            size=sum(part.stat().st_size for part in (path, path.with_suffix(".bin")) if part.is_file()),
            milliseconds=1000 * statistics.median(seconds),
        )
        for (name, path), seconds in zip(files.items(), times, strict=True)
    ]


def _times(runs: Sequence[Callable[..., object]], inputs: Images) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run(inputs[0])  # what a first image costs more is not meant
    for images in inputs:
        for run, seconds in zip(runs, times, strict=True):
            before = time.perf_counter()
            run(images)
            seconds.append(time.perf_counter() - before)
    return times


def table(rows: Sequence[Compared]) -> str:
    """The rows in Markdown."""
    lines = [(row.name, f"{row.ap:.2f}", f"{row.size / 2**20:.1f}", f"{row.milliseconds:.1f}") for row in rows]
    return tabulate(lines, headers=["file", "AP", "MiB", "ms an image"], tablefmt="github", disable_numparse=True)

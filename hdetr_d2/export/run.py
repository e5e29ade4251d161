"""Exporting, as ``hdetr-d2 export`` does it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from detectron2.config import instantiate
from detectron2.data import transforms as T

from hdetr_d2.annotations.layouts import CocoSplit
from hdetr_d2.detector import Detector
from hdetr_d2.errors import UserError
from hdetr_d2.images import Pixels
from hdetr_d2.images.opening import MAX_PIXELS
from hdetr_d2.modeling import deploy
from hdetr_d2.output import OutputError, refuse_unwritable
from hdetr_d2.prediction import open_inputs
from hdetr_d2.prediction.evaluation import category_ids
from hdetr_d2.runtime.metadata import resized

from .checking import TOLERANCE, difference, images_of, random_batches, read_images
from .dataset_check import Precisions, is_dataset, number_of_images, precision_of, some_images
from .describing import metadata_of, move, write_metadata
from .formats import FORMATS, Format, export_program, to_openvino
from .low_precision import TOLERANCES, compare_files, table, write_lowered
from .lowering import PRECISIONS, Precision
from .onnx import export_onnx
from .source import Exportable, ExportError, evaluation_size, load_config, of_config, trained, untrained

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is asked for.

    Args:
        model: as `detector.open_source` takes it; with ``config`` a file of weights that says nothing of itself, or
            None; with ``random_weights`` a config.
        output: the file to write: an .onnx, the .xml of OpenVINO's representation, or the .pt2 of a program of
            torch.export.
        config: of the weights.
        random_weights: whether the model is newly initialised.
        size: (H, W) of images, fixed in the graph; None lets it take images of any size.
        keep_norms: whether BatchNorm stays apart from other convolutions; RT-DETR's blocks are fused anyhow.
        check: what the file is compared on: a dataset, paths of images, or () for noise; None for no comparison.
        check_images: of a dataset, how many.
        precision: of products with weights; of "float16" and "int8" at least one block of modules.
        calibrate: a dataset, best that of the training, whose images give int8 its ranges; its annotations tell which
            blocks must stay in float32. None leaves float16 without that.
        calibration_images: how many of its training split.
        overrides: ``key=value`` for the config.
        download: whether published weights are downloaded.
    """

    model: str | None
    output: Path
    config: str | None = None
    random_weights: bool = False
    size: tuple[int, int] | None = None
    keep_norms: bool = False
    check: tuple[str, ...] | None = None
    check_images: int = 100
    precision: Precision = "float32"
    calibrate: str | None = None
    calibration_images: int = 64
    overrides: tuple[str, ...] = ()
    download: bool | None = None

    def __post_init__(self) -> None:
        if self.size is not None and (min(self.size) < 1 or math.prod(self.size) > MAX_PIXELS):
            raise ExportError(
                f"--size must be at least 1 x 1 and have at most {MAX_PIXELS:,} pixels, not {self.size[0]} x "
                f"{self.size[1]}"
            )
        if self.output.suffix.lower() not in FORMATS and not os.path.isdir(
            self.output
        ):  # or a checkpoint could be lost
            raise ExportError(f"--output {self.output}: an exported file's name ends in {', '.join(FORMATS)}")
        if self.check_images < 1:
            raise ExportError(f"--check-images must be at least 1, not {self.check_images}")
        if self.calibration_images < 1:
            raise ExportError(f"--calibration-images must be at least 1, not {self.calibration_images}")
        if self.model is None and self.config is None:
            raise ExportError("name the model")
        self._check_precision()

    @property
    def format(self) -> Format:
        """Of the output; a folder is refused later."""
        return FORMATS.get(self.output.suffix.lower(), "onnx")

    def _check_precision(self) -> None:
        if self.precision not in PRECISIONS:
            raise ExportError(f'--precision is one of {", ".join(PRECISIONS)}, not "{self.precision}"')
        if self.precision == "float32" and self.calibrate is not None:
            raise ExportError("--calibrate is for --precision int8 and float16")
        if self.precision == "int8" and self.calibrate is None:
            raise ExportError("--precision int8 takes the ranges of numbers from images: give --calibrate DATASET")
        if self.precision != "float32" and self.format == "torch":
            raise ExportError(f"{self.output}: programs of torch.export are in float32; leave --precision out")
        if self.precision != "float32" and self.check is not None and _dataset(self.check) is None:
            raise ExportError(
                f"--precision {self.precision} changes every number a little: --check takes a dataset, to measure AP"
            )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What came of it.

    Args:
        path: the file; under the name of `failed_name` where it differs.
        precision: of it.
        difference: between the file and the model; None where they were not compared.
        precisions: of both on a dataset; None where they were not measured.
    """

    path: Path
    precision: Precision = "float32"
    difference: float | None = None
    precisions: Precisions | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing differs more than it may that was compared; low precision may be better by chance."""
        if self.difference is not None and self.difference > TOLERANCE:
            return False
        if self.precisions is None:
            return True
        apart = self.precisions.difference if self.precision == "float32" else self.precisions.loss
        return apart <= TOLERANCES[self.precision]


def failed_name(path: Path) -> Path:
    """What a file is called that was found to differ from its model: nobody deploys it by mistake."""
    return path.with_name(f"{path.stem}.failed{path.suffix}")


def run(request: Export, *, say: Say = print) -> Exported:
    """Export, and compare where that is asked for.

    Raises:
        UserError: the model cannot be had, or the file not be written.
    """
    example = request.size
    if example is None and request.config is not None:
        example = evaluation_size(load_config(request.config, request.overrides))  # before weights are read
    refuse_unwritable(request.output, make_folder=True)
    if request.check is not None:
        _require("onnxruntime", "--check")
    data = _dataset(request.check or ())
    images = read_images(open_inputs(request.check)) if request.check and data is None else None
    with tempfile.TemporaryDirectory() as folder:  # what can be wrong is told before the work
        part = None if data is None else some_images(data, request.check_images, folder)
        calibration = _calibration(request, folder)
        found = _open(request)
        example = example or evaluation_size(found.cfg)
        for each in (part, calibration):
            if each is not None:
                with each.told():
                    category_ids(found, each)
                if request.size is None:
                    resized(1, 1, found.description.resize, request.model or str(request.config))
        with _beside(request.output) as written:
            graph = Path(folder) / "graph.onnx" if request.format == "openvino" else written
            float32 = graph if request.precision == "float32" else Path(folder) / "float32.onnx"
            about = _write(found, request, float32, example)
            if request.precision != "float32":
                say(about)
                about = _lower(found, request, float32, graph, calibration, say)
            if request.format == "openvino":
                to_openvino(graph, written)
            exported = _compared(found, request, {"float32": float32, request.precision: written}, part, images, say)
            exported = replace(exported, path=request.output if exported.passed else failed_name(request.output))
            files = move(written, exported.path)
    say(f"{about} -> {' and '.join(map(str, files))}")
    _tell(exported, say)
    return exported


def _calibration(request: Export, folder: str) -> CocoSplit | None:
    if request.calibrate is None:
        return None
    _require("onnxruntime", "--calibrate")
    if not is_dataset(request.calibrate):
        raise ExportError(f"{request.calibrate}: --calibrate takes a dataset with annotations, and this is none")
    return some_images(
        request.calibrate, request.calibration_images, folder, split="train", option="--calibration-images"
    )


def _lower(
    found: Exportable, request: Export, source: Path, path: Path, calibration: CocoSplit | None, say: Say
) -> str:
    """Write the file in low precision, and say what it is."""
    lower = partial(
        write_lowered,
        source,
        path,
        request.precision,
        description=found.description,
        calibration=calibration,
        say=say,
    )
    if calibration is None:
        lower()
    else:
        with calibration.told():
            lower()
    write_metadata(path, metadata_of(found.description, size=request.size, precision=request.precision))
    return request.precision


def _write(found: Exportable, request: Export, path: Path, example: tuple[int, int]) -> str:
    """Write the file in float32, and say what it is; the model is deployed in place."""
    deploy(found.model, conv_norms=not request.keep_norms)
    metadata = metadata_of(found.description, size=request.size)
    count = sum(parameter.numel() for parameter in found.model.parameters())
    sizes = "any size" if request.size is None else f"{example[0]} x {example[1]}"
    if request.format == "torch":
        export_program(found.model, path, metadata, image_size=example, any_size=request.size is None)
        return f"{count:,} parameters, images of {sizes}"
    _require("onnxscript", "export")
    if request.format == "openvino":
        _require("openvino", f"{request.output.suffix} as output")
    export_onnx(found.model, path, image_size=example, any_size=request.size is None)
    write_metadata(path, metadata)
    return f"{count:,} parameters, opset {metadata.opset}, images of {sizes}"


def _compared(
    found: Exportable,
    request: Export,
    files: Mapping[str, Path],
    part: CocoSplit | None,
    images: Sequence[Pixels] | None,
    say: Say,
) -> Exported:
    """How far the file is from its model, where that is asked for: by AP on a dataset, else by outputs."""
    written = files[request.precision]
    exported = Exported(path=written, precision=request.precision)
    if request.check is None:
        return exported
    if part is None:
        size = request.size or evaluation_size(found.cfg)
        batches = random_batches(size, any_size=request.size is None)
        if images is not None:
            batches = images_of(images, _detector(found, request))
        return replace(exported, difference=difference(found.model, written, batches))
    with part.told():
        measured = compare_files(files, found.description, part)
        if len(measured) > 1:
            say(table(measured))
        in_pytorch = precision_of(_detector(found, request), part)
        precisions = Precisions(model=in_pytorch, file=measured[-1].ap, images=number_of_images(part))
    return replace(exported, precisions=precisions)


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A file of the same name in a folder of its own: what is there already stays until the new one is whole.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.stem[:50]}-", dir=output.parent) as folder:
            yield Path(folder) / output.name
    except UserError:
        raise
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error}); choose another place") from error


def _tell(exported: Exported, say: Say) -> None:
    """How far file and model are apart."""
    if exported.precisions is not None:
        ap = exported.precisions
        say(
            f"AP {ap.model:.2f} in PyTorch and {ap.file:.2f} in the file on {ap.images} images "
            f"(at most {TOLERANCES[exported.precision]} {'apart' if exported.precision == 'float32' else 'less'})"
        )
    if exported.difference is not None:
        say(f"the file differs by {exported.difference:.1e} (at most {TOLERANCE:.0e})")
    if not exported.passed:
        say(f"the file is not what the model is; it is kept as {exported.path}")


def _dataset(named: tuple[str, ...]) -> str | None:
    """The dataset among what --check looks at; None for images, and for nothing.

    Raises:
        ExportError: there is something besides.
    """
    datasets = [name for name in named if is_dataset(name)]
    if datasets and len(named) > 1:
        raise ExportError(f"--check takes one dataset or images, and {datasets[0]} is a dataset among {len(named)}")
    return datasets[0] if datasets else None


def _detector(found: Exportable, request: Export) -> Detector:
    """The model with all its detections, in images as the file takes them."""
    if request.size is not None:
        augmentations = [T.Resize(request.size)]
    else:
        augmentations = list(instantiate(found.cfg.dataloader.test.mapper.augmentations))
    return Detector(
        model=found.model,
        description=found.description,
        augmentations=augmentations,
        score_threshold=0.0,
        device="cpu",
    )


def _open(request: Export) -> Exportable:
    if request.config is not None:
        return of_config(request.config, request.model, request.overrides)
    assert request.model is not None
    if request.random_weights:
        return untrained(request.model, request.overrides)
    return trained(request.model, request.overrides, download=request.download)


def _require(package: str, what: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise ExportError(f"{what} needs the package {package}: pip install onnx onnxscript onnxruntime openvino")

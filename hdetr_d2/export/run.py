"""Exporting, as ``hdetr-d2 export`` does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hdetr_d2.modeling import DETR, deploy
from hdetr_d2.output import refuse_unwritable
from hdetr_d2.prediction import Inputs, open_inputs

from .checking import TOLERANCE, difference, images_of, random_batches
from .onnx import export_onnx
from .source import Exportable, ExportError, evaluation_size, load_config, of_config, trained, untrained

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is asked for.

    Args:
        model: as `detector.open_source` takes it; with ``config`` a file of weights that says nothing of itself, or
            None; with ``random_weights`` a config.
        output: the file to write.
        config: of the weights.
        random_weights: whether the model is newly initialised.
        size: (H, W) of images; None is as the config evaluates a photograph.
        keep_norms: whether BatchNorm stays apart from other convolutions; RT-DETR's blocks are fused anyhow.
        check: what the file is compared on: paths of images, or () for noise; None for no comparison.
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
    overrides: tuple[str, ...] = ()
    download: bool | None = None

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ExportError(f"--size must be at least 1 x 1, not {self.size[0]} x {self.size[1]}")
        if self.model is None and self.config is None:
            raise ExportError("name the model")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What came of it.

    Args:
        path: the file.
        difference: between the file and the model; None where they were not compared.
    """

    path: Path
    difference: float | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing differs that was compared."""
        return self.difference is None or self.difference <= TOLERANCE


def run(request: Export, *, say: Say = print) -> Exported:
    """Export, and compare where that is asked for.

    Raises:
        UserError: the model cannot be had, or the file not be written.
    """
    size = request.size
    if size is None and request.config is not None:
        size = evaluation_size(load_config(request.config, request.overrides))  # before weights are read
    refuse_unwritable(request.output, make_folder=True)
    if request.check is not None:
        _require("onnxruntime", "--check")
    inputs = open_inputs(request.check) if request.check else None
    found = _open(request)
    size = size or evaluation_size(found.cfg)
    batches = None if request.check is None else _batches(inputs, size, found)
    model = deploy(found.model, conv_norms=not request.keep_norms)
    assert isinstance(model, DETR)
    _require("onnxscript", "export")
    files = export_onnx(model, request.output, image_size=size)
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"{count:,} parameters, images of {size[0]} x {size[1]} -> {' and '.join(map(str, files))}")
    if batches is None:
        return Exported(path=request.output)
    exported = Exported(path=request.output, difference=difference(model, request.output, batches))
    say(f"onnxruntime differs by {exported.difference:.1e} (at most {TOLERANCE:.0e})")
    return exported


def _open(request: Export) -> Exportable:
    if request.config is not None:
        return of_config(request.config, request.model, request.overrides)
    assert request.model is not None
    if request.random_weights:
        return untrained(request.model, request.overrides)
    return trained(request.model, request.overrides, download=request.download)


def _batches(inputs: Inputs | None, size: tuple[int, int], found: Exportable) -> Iterator[Tensor]:
    return random_batches(size) if inputs is None else images_of(inputs, size, found.cfg)


def _require(package: str, what: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise ExportError(f"{what} needs the package {package}: pip install onnx onnxscript onnxruntime")

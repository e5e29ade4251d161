"""``hdetr-d2 export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hdetr_d2.errors import UserError

from .options import Config, Download

if TYPE_CHECKING:
    from hdetr_d2.export.lowering import Precision


class ExportUsageError(UserError, ValueError):
    """Options of export that do not go together."""


ModelOrConfig = Annotated[
    str, typer.Option("--model", metavar="RUN|FILE|zoo:NAME|CONFIG", help="The model; a config for random weights.")
]
OutputFile = Annotated[
    Path,
    typer.Option(
        "--output", metavar="FILE.onnx|.xml|.pt2", help="The file to write: ONNX, OpenVINO's, torch.export's."
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE|DATA]...", help="Changes of the config, and what --check looks at."),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="A newly initialised model of a config, to try a runtime.")
]
Size = Annotated[
    tuple[int, int] | None,
    typer.Option("--size", metavar="H W", help="Of images, fixed in the graph; without it they may be of any size."),
]
KeepNorms = Annotated[bool, typer.Option("--keep-norms", help="Do not fold BatchNorm into convolutions.")]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Compare with onnxruntime: AP on a dataset, outputs on images or noise; exit code 1 if it differs.",
    ),
]
CheckImages = Annotated[
    int, typer.Option("--check-images", min=1, help="Of a dataset, how many images --check measures.")
]

PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision", metavar="float32|float16|int8", help="Of products with weights; others stay in float32."
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        metavar="DATASET",
        help="The training's images: they give int8 its ranges, and tell which layers must stay in float32.",
    ),
]
CalibrationImages = Annotated[int, typer.Option("--calibration-images", min=1, help="How many of them are used.")]


def export(
    model: ModelOrConfig,
    output: OutputFile,
    arguments: Arguments = None,
    random_weights: RandomWeights = False,
    config: Config = None,
    size: Size = None,
    keep_norms: KeepNorms = False,
    check: Check = False,
    check_images: CheckImages = 100,
    precision: PrecisionOption = "float32",
    calibrate: Calibrate = None,
    calibration_images: CalibrationImages = 64,
    download: Download = False,
) -> None:
    """Write a model as ONNX, or as OpenVINO and torch.export have it.

    Batches and images may be of any size unless --size says one. Inputs are pixels in the range that the model takes;
    outputs are scores, labels and boxes (XYXY in parts of the image). The file says itself how images are prepared and
    what classes are called: hdetr_d2.runtime and hdetr-d2 serve run it without PyTorch.

    Examples:

    hdetr-d2 export --model output/run --output model.onnx --check path/to/dataset

    hdetr-d2 export --model output/run --output small.onnx --precision int8 --calibrate path/to/dataset

    hdetr-d2 export --model zoo:rtdetr_r50_72ep --output rtdetr.onnx --download

    hdetr-d2 export --model rtdetr_r18_72ep --random-weights --output model.onnx --size 320 320 --check
    """
    overrides = [argument for argument in arguments or [] if "=" in argument]
    data = [argument for argument in arguments or [] if "=" not in argument]
    if data and not check:
        raise ExportUsageError(f"{data[0]} is no KEY=VALUE; data is for --check")
    if random_weights and config is not None:
        raise ExportUsageError("--random-weights takes the config as --model; leave --config out")
    from hdetr_d2.export.run import Export, run

    exported = run(
        Export(
            model=model,
            output=output,
            config=config,
            random_weights=random_weights,
            size=size,
            keep_norms=keep_norms,
            check=tuple(data) if check else None,
            check_images=check_images,
            precision=cast("Precision", precision),  # what is none is told there
            calibrate=calibrate,
            calibration_images=calibration_images,
            overrides=tuple(overrides),
        ),
        say=typer.echo,
    )
    if not exported.passed:
        raise typer.Exit(1)

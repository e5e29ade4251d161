"""``hdetr-d2 export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Config, Download


class ExportUsageError(UserError, ValueError):
    """Options of export that do not go together."""


ModelOrConfig = Annotated[
    str, typer.Option("--model", metavar="RUN|FILE|zoo:NAME|CONFIG", help="The model; a config for random weights.")
]
OutputFile = Annotated[Path, typer.Option("--output", metavar="FILE.onnx", help="The file to write.")]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE|IMAGES]...", help="Changes of the config, and what --check looks at."),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="A newly initialised model of a config, to try a runtime.")
]
Size = Annotated[
    tuple[int, int] | None,
    typer.Option("--size", metavar="H W", help="Of images; without it as a photograph is evaluated."),
]
KeepNorms = Annotated[bool, typer.Option("--keep-norms", help="Do not fold BatchNorm into convolutions.")]
Check = Annotated[
    bool, typer.Option("--check", help="Compare with onnxruntime, on IMAGES or noise; exit code 1 if it differs.")
]


def export(
    model: ModelOrConfig,
    output: OutputFile,
    arguments: Arguments = None,
    random_weights: RandomWeights = False,
    config: Config = None,
    size: Size = None,
    keep_norms: KeepNorms = False,
    check: Check = False,
    download: Download = False,
) -> None:
    """Write a model as ONNX.

    The image size is fixed in the graph, the batch is not. Inputs are pixels in the range that the model takes;
    outputs are scores, labels and boxes (XYXY in parts of the image).

    Examples:

    hdetr-d2 export --model output/run --output model.onnx --check photos/

    hdetr-d2 export --model zoo:rtdetr_r50_72ep --output rtdetr.onnx --download

    hdetr-d2 export --model rtdetr_r18_72ep --random-weights --output model.onnx --size 320 320 --check
    """
    overrides = [argument for argument in arguments or [] if "=" in argument]
    images = [argument for argument in arguments or [] if "=" not in argument]
    if images and not check:
        raise ExportUsageError(f"{images[0]} is no KEY=VALUE; images are for --check")
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
            check=tuple(images) if check else None,
            overrides=tuple(overrides),
        ),
        say=typer.echo,
    )
    if not exported.passed:
        raise typer.Exit(1)

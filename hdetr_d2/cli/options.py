"""The options that commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the config: schedule.epochs=24."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="RUN|FILE|zoo:NAME", help="A run's folder, a .pth or .safetensors, or a published model."
    ),
]
OutputFolder = Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where everything is written.")]
Annotations = Annotated[
    Path | None, typer.Option("--annotations", metavar="FILE", help="A json in COCO's or LVIS's format.")
]
Images = Annotated[Path | None, typer.Option("--images", metavar="FOLDER", help="The folder of its images.")]
Config = Annotated[
    str | None,
    typer.Option("--config", metavar="CONFIG", help="Of weights that do not describe themselves, or to compare with."),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1; without it CUDA where there is any.")
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option(
        "--score-threshold",
        metavar="0..1",
        help="Leave out detections with a lower score; without it the model's own threshold.",
    ),
]


def _allow_downloads(context: typer.Context, asked: bool) -> bool:
    """While the command runs, published weights may be downloaded."""
    if asked:
        from hdetr_d2.weights.consent import allow_downloads

        context.with_resource(allow_downloads())
    return asked


Download = Annotated[
    bool,
    typer.Option("--download", callback=_allow_downloads, help="Download published weights that are not here yet."),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Images (or tiles) of one size that are worked on at once.")
]

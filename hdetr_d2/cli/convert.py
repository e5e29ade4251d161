"""``hdetr-d2 convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hdetr_d2.errors import UserError

from .options import Config, Download


class ConvertUsageError(UserError, ValueError):
    """Arguments of convert that do not go together."""


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A file, a run's folder, zoo:NAME, hf://owner/repository, file:// or https://."
    ),
]
Output = Annotated[
    Path | None, typer.Argument(metavar="[OUTPUT]", help="The file to write; a folder for transformers.")
]
NamedOutput = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="The same as OUTPUT, by its name.")]
Origin = Annotated[
    str | None, typer.Option("--from", metavar="PROJECT", help="Whose names the source has; else it is looked at.")
]
Target = Annotated[
    str, typer.Option("--to", metavar="PROJECT", help="Whose names are wanted, or safetensors for ours in a twin.")
]
NumQueries = Annotated[int, typer.Option("--num-queries", min=1, help="Queries of the one-to-one group.")]
Rows = Annotated[
    Literal["all", "coco"],
    typer.Option("--classes", help="All rows of the class heads, or COCO's 80 of 91; from ours the other way."),
]
SourceNames = Annotated[
    str | None,
    typer.Option("--source-names", metavar="coco|FILE", help="Classes of the source, where it does not say them."),
]
TargetNames = Annotated[
    Path | None,
    typer.Option("--annotations", metavar="FILE", help="A dataset's json, or a json list: rows go along by name."),
]


def convert(
    source: Source,
    output: Output = None,
    origin: Origin = None,
    target: Target = "hdetr_d2",
    num_queries: NumQueries = 300,
    classes: Rows = "all",
    source_names: SourceNames = None,
    annotations: TargetNames = None,
    config: Config = None,
    named_output: NamedOutput = None,
    download: Download = False,
) -> None:
    """Convert weights from and to other projects, or download and convert a published model.

    Projects: the authors' codes (hdetr, hdetr_lvis, deformable_detr, detr, conditional_detr, dab_detr, dn_detr,
    dab_deformable_detr, dn_deformable_detr, dino, ms_detr, mr_detr, rtdetr), mmdet, detrex, transformers; backbones of
    torchvision, timm, detectron2 and swin; hdetr_d2 is ours.

    With --config the exit code is 1 where the result does not fit the config's model.

    Examples:

    hdetr-d2 convert zoo:h_deformable_detr_r50_12ep --download

    hdetr-d2 convert theirs.pth ours.pth --from hdetr --classes coco --config h_deformable_detr_r50_12ep

    hdetr-d2 convert output/run/model_final.pth --to safetensors

    hdetr-d2 convert zoo:detr_r50_500ep detr/ --to transformers

    hdetr-d2 convert zoo:h_deformable_detr_r50_12ep start.pth --annotations train.json
    """
    if output is not None and named_output is not None:
        raise ConvertUsageError(f"name one output, {output} or --output {named_output}")
    from hdetr_d2.conversion import Conversion
    from hdetr_d2.conversion import convert as convert_weights

    from .logging import plain_logging

    plain_logging()
    outcome = convert_weights(
        Conversion(
            source=source,
            output=output or named_output,
            origin=origin,
            target=target,
            num_queries=num_queries,
            classes=classes,
            source_names=source_names,
            target_names=None if annotations is None else str(annotations),
            config=config,
        ),
        say=typer.echo,
    )
    for difference in outcome.differences:
        typer.echo(difference, err=True)
    typer.echo(outcome.summary)
    if outcome.differences:
        raise typer.Exit(1)

"""``hdetr-d2 finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Download, Overrides


def finetune(
    data: Annotated[
        str,
        typer.Argument(metavar="PATH", help="A dataset: COCO or LVIS json, a YOLO or Pascal VOC folder, an export."),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME|CONFIG|RUN|FILE",
            help="A packaged config, a config file, zoo:NAME, a run's folder, or a .pth or .safetensors.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where everything is written.")],
    overrides: Overrides = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Length of the training; without it, from the number of images.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    num_gpus: Annotated[int, typer.Option("--num-gpus", min=0, help="Processes; 0 is one on the CPU.")] = 1,
    download: Download = False,
) -> None:
    """Train a model on data of one's own, and write a report.

    Image size, batch, learning rate, warm-up, average and length are chosen from the data and told; what KEY=VALUE sets
    is not chosen. Classes that the model knows by name keep what it learned. At the end every class has the threshold
    with the best F1 on the validation set, which predict uses, and FOLDER/report.html shows how good it is.

    Examples:

    hdetr-d2 finetune photos/ --model h_deformable_detr_r50_12ep --output output/photos

    hdetr-d2 finetune data.yaml --model output/run --output output/more --epochs 24 train.batch_size=4

    hdetr-d2 finetune photos/ --model output/run --output output/more --resume
    """
    from hdetr_d2.errors import UserError
    from hdetr_d2.finetune import FinetuneError
    from hdetr_d2.finetune import finetune as run

    from .logging import plain_logging

    if epochs is not None and not 0 < epochs < float("inf"):
        raise FinetuneError(f"--epochs must be positive, not {epochs:g}")
    plain_logging()
    try:
        run(
            data,
            model=model,
            output=output,
            epochs=epochs,
            overrides=overrides or [],
            resume=resume,
            num_gpus=num_gpus,
            say=typer.echo,
        )
    except OSError as error:
        if isinstance(error, UserError) or error.filename is None:
            raise
        raise FinetuneError(f"{error.filename}: {error.strerror}; see --output") from error

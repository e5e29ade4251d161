"""``hdetr-d2 predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Annotations, BatchSize, Device, Download, Model, OutputFolder, ScoreThreshold


class PredictError(UserError, ValueError):
    """An option of predict that cannot be."""


Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Images, folders, patterns, videos, camera:0, or - for a list."),
]
Save = Annotated[str, typer.Option("--save", metavar="KIND,...", help="Of pictures, video, json, crops, txt.")]
Classes = Annotated[str | None, typer.Option("--classes", metavar="NAME,...", help="Only these classes.")]
Suppress = Annotated[
    float | None, typer.Option("--suppress", metavar="IOU", help="Class-wise non-maximum suppression.")
]
MaxDetections = Annotated[int | None, typer.Option("--max-detections", min=1, help="Of an image, the best so many.")]
NumQueries = Annotated[int | None, typer.Option("--num-queries", min=1, help="Fewer queries, for two-stage models.")]
Precision = Annotated[str, typer.Option("--precision", metavar="fp32|bf16|fp16")]
Tile = Annotated[
    int | None, typer.Option("--tile", min=32, help="Detect in tiles of so many pixels, for large images.")
]
Overlap = Annotated[float, typer.Option("--overlap", min=0.0, max=0.9, help="Of neighbouring tiles.")]


def predict(
    inputs: Inputs,
    model: Model,
    output: OutputFolder,
    save: Save = "pictures,json",
    score_threshold: ScoreThreshold = None,
    classes: Classes = None,
    suppress: Suppress = None,
    max_detections: MaxDetections = None,
    num_queries: NumQueries = None,
    precision: Precision = "fp32",
    device: Device = None,
    batch_size: BatchSize = 1,
    tile: Tile = None,
    overlap: Overlap = 0.2,
    annotations: Annotations = None,
    download: Download = False,
) -> None:
    """Detect in images, folders, videos or cameras.

    With --save json, detections.json is in COCO's results format and images.json has ids, names and sizes; with
    --annotations the ids are those of that file.

    Examples:

    hdetr-d2 predict photos/ --model output/run --output found

    hdetr-d2 predict film.mp4 --model model_final.pth --output found --save video --score-threshold 0.5

    find . -name '*.jpg' | hdetr-d2 predict - --model output/run --output found --save json,txt
    """
    from hdetr_d2.prediction import make_writers, open_inputs
    from hdetr_d2.prediction import predict as predict_all
    from hdetr_d2.prediction.setup import image_ids_of, make_detect, prepare_folder, refuse_own_input

    kinds = _kinds(save)
    found = open_inputs(inputs)
    refuse_own_input(output, found)
    folder = prepare_folder(output)
    ids = image_ids_of(annotations)
    detector, detect = make_detect(
        model,
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        score_threshold=score_threshold,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        suppress=suppress,
        max_detections=max_detections,
        num_queries=num_queries,
        precision=precision,
        device=device,
    )
    description = detector.description
    writers = make_writers(
        kinds, folder, category_ids=description.category_ids, class_names=description.class_names, image_ids=ids
    )
    summary = predict_all(detect, found, writers, batch_size=batch_size)
    hint = score_threshold is None and summary.images > 0 and not summary.detections
    _tell(summary.images, summary.detections, summary.broken, folder, hint=hint)


def _kinds(save: str) -> list[str]:
    """What is to be written."""
    from hdetr_d2.prediction import SAVABLE

    kinds = [kind.strip() for kind in save.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in SAVABLE]
    if unknown or not kinds:
        raise PredictError(f"--save: {', '.join(unknown) or 'nothing'} cannot be saved; there is {', '.join(SAVABLE)}")
    return kinds


def _tell(images: int, detections: int, broken: tuple[str, ...], folder: Path, *, hint: bool) -> None:
    """Say what came of it; exit code 1 where a file could not be read."""
    for message in broken:
        typer.echo(f"skipped: {message}", err=True)
    more = "; --score-threshold 0.05 shows what the model is less sure of" if hint else ""
    typer.echo(f"{detections} detections in {images} images -> {folder}{more}")
    if broken:
        typer.echo(f"{len(broken)} files could not be read", err=True)
        raise typer.Exit(1)

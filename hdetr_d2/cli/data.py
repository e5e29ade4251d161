"""``hdetr-d2 data``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from hdetr_d2.errors import UserError

from .options import Annotations, Images

app = typer.Typer(help="Datasets: check, show, convert, generate.", no_args_is_help=True)

DataPath = Annotated[
    Path, typer.Argument(metavar="PATH", help="A folder, a data.yaml or a json: COCO, LVIS, YOLO or Pascal VOC.")
]


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pdf")
"""Endings of files that a drawing can be saved as."""


class DataOptionError(UserError, ValueError):
    """Options of data's commands that do not go together."""


@app.command("check")
def check(
    path: DataPath,
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Decode the images, to find broken ones and copies.")
    ] = True,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Of each finding, so many are shown.")] = 5,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.json", help="Also write everything there, for programs.")
    ] = None,
) -> None:
    """Say what is in a dataset, and what is wrong with it.

    Exit code 0: no problems. 1: problems that training would suffer from. 2: it cannot be read at all.

    Examples:

    hdetr-d2 data check photos/

    hdetr-d2 data check photos/data.yaml --output findings.json
    """
    from hdetr_d2.data.inspection import as_json, as_text, inspect_dataset
    from hdetr_d2.output import refuse_unwritable, writing

    if output is not None:
        refuse_unwritable(output, make_folder=True)
    inspection = inspect_dataset(path, pixels=pixels)
    typer.echo(as_text(inspection, examples=examples))
    if output is not None:
        with writing(output) as file:
            file.write_text(json.dumps(as_json(inspection), indent=1) + "\n", encoding="utf-8")
    if inspection.hurts:
        raise typer.Exit(1)


@app.command("show")
def show(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="A dataset of any layout; or give --annotations.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option("--split", help="Of PATH.")] = "train",
    annotations: Annotations = None,
    images: Images = None,
    results: Annotated[
        Path | None, typer.Option("--results", metavar="FILE", help="Detections in COCO's format, drawn beside.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", metavar="FILE.png", help="The picture.")] = Path("dataset.png"),
    num_images: Annotated[int, typer.Option("--num-images", min=1, help="How many, at random.")] = 8,
    image_ids: Annotated[
        str | None, typer.Option("--image-ids", metavar="ID,...", help="These images instead.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice.")] = 0,
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", min=0.0, max=1.0, help="Lowest score that is drawn.")
    ] = 0.3,
    columns: Annotated[int, typer.Option("--columns", min=1, help="Images in a row.")] = 2,
    size: Annotated[int, typer.Option("--size", min=16, help="Long side of an image, in pixels.")] = 480,
) -> None:
    """Draw images with their annotations, and results beside them.

    Examples:

    hdetr-d2 data show photos/ --output data.png

    hdetr-d2 data show --annotations val.json --images photos --results found/detections.json
    """
    import tempfile

    from hdetr_d2.output import writing
    from hdetr_d2.visualization import dataset_sheet

    if (path is None) == (annotations is None) or (annotations is None) != (images is None):
        raise DataOptionError("give either PATH, or --annotations and --images")
    if output.suffix.lower() not in PICTURES:
        raise DataOptionError(f"--output {output}: the name must end as a picture's does, such as {output}.png")
    ids = _integers(image_ids)
    with tempfile.TemporaryDirectory() as folder:
        if path is not None:
            annotations, images = _files_of(path, split, folder)
        assert annotations is not None
        assert images is not None
        sheet = dataset_sheet(
            annotations,
            images,
            results=results,
            num_images=num_images,
            image_ids=ids,
            seed=seed,
            score_threshold=score_threshold,
            columns=columns,
            long_side=size,
        )
    with writing(output) as file:
        sheet.save(file)
    typer.echo(f"{output} ({sheet.width} x {sheet.height})")


def _integers(text: str | None) -> list[int]:
    try:
        return [] if text is None else [int(word) for word in text.split(",")]
    except ValueError as error:
        raise DataOptionError(f'--image-ids "{text}": must be numbers with commas between them') from error


def _files_of(path: Path, split: Literal["train", "val", "test"], folder: str) -> tuple[Path, Path]:
    from hdetr_d2.annotations.layouts import prepare_dataset

    splits = prepare_dataset(path, folder, need_validation=False).splits
    if split not in splits:
        raise DataOptionError(f"{path}: there is no {split} split; there is {', '.join(splits)}")
    return splits[split].json, splits[split].images


@app.command("convert")
def convert(
    path: DataPath,
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Gets train.json, val.json and so on.")],
    validation: Annotated[
        bool, typer.Option("--draw-validation", help="Make a fifth of the images a validation split if there is none.")
    ] = False,
) -> None:
    """Write a dataset's annotations as COCO json, with ids that are the same each time.

    Images stay where they are. The json says where that is, so FOLDER can be given wherever a dataset is asked for.

    Example:

    hdetr-d2 data convert photos/data.yaml --output photos/coco
    """
    from hdetr_d2.annotations import read_annotation_file
    from hdetr_d2.annotations.layouts import prepare_dataset, write_with_image_folder
    from hdetr_d2.prediction.setup import prepare_folder

    folder = prepare_folder(output)
    there = [name for name in ("train.json", "val.json", "test.json") if (folder / name).exists()]
    if there:
        raise DataOptionError(f"{folder / there[0]} is there already; name another --output")
    splits = prepare_dataset(path, folder, need_validation=validation).splits
    for files in splits.values():
        read_annotation_file(files.json)  # a COCO json is used as it is
    for name, files in splits.items():
        target = folder / f"{name}.json"
        write_with_image_folder(files, target)
        typer.echo(f"{name}: {target} with images in {files.images}")


@app.command("generate")
def generate(
    num_train: Annotated[int, typer.Option("--num-train", min=1, help="Training images.")] = 2000,
    num_val: Annotated[int, typer.Option("--num-val", min=1, help="Validation images.")] = 300,
    smallest_size: Annotated[int, typer.Option("--image-size", min=32, help="Side of an image, in pixels.")] = 192,
    largest_size: Annotated[
        int | None, typer.Option("--largest-size", min=32, help="Sides are between --image-size and this.")
    ] = None,
    num_classes: Annotated[int, typer.Option("--num-classes", min=1, help="Kinds of objects.")] = 20,
    first_class: Annotated[int, typer.Option("--first-class", min=0, help="Where in the fixed table they begin.")] = 0,
    max_objects: Annotated[int, typer.Option("--max-objects", min=1, help="Of an image.")] = 30,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawing.")] = 0,
    long_tail: Annotated[bool, typer.Option("--long-tail", help="Classes from frequent to rare.")] = False,
    format: Annotated[Literal["coco", "lvis"], typer.Option("--format", help="Of the annotations.")] = "coco",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Default: $HDETR_D2_CACHE or ~/.cache/hdetr_d2.")
    ] = None,
) -> None:
    """Draw the generated dataset into the cache; training does this by itself when needed.

    Examples:

    hdetr-d2 data generate

    hdetr-d2 data generate --format lvis --long-tail
    """
    from hdetr_d2.data import ensure_generated

    try:
        files = ensure_generated(
            num_train=num_train,
            num_val=num_val,
            image_size=(smallest_size, largest_size or smallest_size),
            num_classes=num_classes,
            first_class=first_class,
            max_objects=max_objects,
            seed=seed,
            long_tail=long_tail,
            format=format,
            cache_folder=None if output is None else str(output),
        )
    except OSError as error:
        raise DataOptionError(f"--output {output}: cannot be written to: {error.strerror}") from error
    for split in ("train", "val"):
        typer.echo(f"{split}: {files.json(split)} with images in {files.images(split)}")

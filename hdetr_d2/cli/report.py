"""``hdetr-d2 report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdetr_d2.errors import UserError

from .options import Annotations, Device, Images, Model, Overrides

app = typer.Typer(
    help="Reports on runs: curves, long tail, comparisons, matching, duplicates, errors.", no_args_is_help=True
)

Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Output folders of training.")]
Results = Annotated[
    list[Path] | None,
    typer.Option("--results", metavar="FILE", help="Detections in COCO's results format, in place of a run."),
]


class ReportOptionError(UserError, ValueError):
    """Options of report's commands that do not go together."""


@app.command("curves")
def curves(
    runs: Annotated[list[str], typer.Argument(metavar="[NAME=]RUN...", help="Output folders, or their metrics.json.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE.png", help="The picture.")] = Path("metrics.png"),
    loss: Annotated[str, typer.Option("--loss", help="The series of the left diagram.")] = "total_loss",
) -> None:
    """Draw loss and AP of runs.

    Example:

    hdetr-d2 report curves hybrid=output/hybrid one2one=output/one2one --output curves.png
    """
    from hdetr_d2.output import refuse_unwritable, writing
    from hdetr_d2.visualization import plot_runs

    refuse_unwritable(output, make_folder=True)
    named = dict(map(_named, runs))
    if len(named) < len(runs):
        raise ReportOptionError("two runs have the same name; name them as NAME=PATH")
    with writing(output) as path:
        plot_runs(named, path, loss=loss)
    typer.echo(f"wrote {output}")


def _named(run: str) -> tuple[str, str]:
    """(name in the legend, path); the name of the folder where none is given."""
    if "=" in run and not Path(run).exists():
        name, _, path = run.partition("=")
        return name, path
    resolved = Path(run).resolve()
    return (resolved.parent if resolved.is_file() else resolved).name, run


@app.command("longtail")
def longtail(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="One or two output folders, of LVIS data.")
    ] = None,
    annotations: Annotations = None,
    results: Results = None,
    images: Images = None,
    train: Annotated[
        Path | None, typer.Option("--train", metavar="FILE", help="Training annotations, for images of each class.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="NAME,...", help="What the page calls the runs.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", metavar="FILE.html", help="The page.")] = Path("longtail.html"),
) -> None:
    """Write a page on rare, common and frequent classes, of one run or of two compared.

    Examples:

    hdetr-d2 report longtail output/one_to_one output/hybrid_branch --names one-to-one,branch

    hdetr-d2 report longtail --annotations val.json --results theirs.json --results ours.json
    """
    from hdetr_d2.evaluation.longtail import write_report

    from .longtail import find_files

    files = find_files(
        runs or [],
        annotations=annotations,
        results=results or [],
        images=images,
        train=train,
        names=[name.strip() for name in names.split(",")] if names else [],
    )
    page = write_report(*files, output)
    for run in page.runs:
        shown = ", ".join(f"{name} {run.metrics[name]:.2f}" for name in ("AP", "APr", "APc", "APf"))
        typer.echo(f"{run.name}: {shown}")
    typer.echo(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB)")


@app.command("compare")
def compare(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Lists the rows of the table.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Of all runs; default output/<name of the file>.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="N,...", help="Instead of those of the file.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Also draw curves of what is finished.")
    ] = None,
    only_table: Annotated[bool, typer.Option("--only-table", help="Train nothing, show what is finished.")] = False,
) -> None:
    """Train several configs with several seeds and print one table.

    Examples:

    hdetr-d2 report compare benchmarks/schemes.yaml

    hdetr-d2 report compare benchmarks/schemes.yaml --seeds 1,2 --only-table schedule.epochs=4
    """
    from hdetr_d2.engine import comparison

    try:
        numbers = None if seeds is None else [int(number) for number in seeds.split(",")]
    except ValueError as error:
        raise ReportOptionError(f'--seeds "{seeds}": must be numbers with commas between them') from error
    asked = comparison.read_comparison(file, overrides=overrides or [], seeds=numbers)
    folder = output or Path("output") / file.stem
    try:
        typer.echo(comparison.compare(asked, folder, train=not only_table, picture=picture))
    except comparison.TrainingFailed as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command("matching")
def matching(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Output folders of train.microscope=True.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE.html", help="The page.")] = Path("matching.html"),
) -> None:
    """Write a page on what trainings matched with what: curves, hard and unstable objects, suspected label errors.

    Example:

    hdetr-d2 report matching output/run --output matching.html
    """
    from hdetr_d2.microscope.report import write_report

    page = write_report(runs, output)
    for run in page.runs:
        starved, duplicates = 100 * run.epochs.starved[-1], 100 * run.epochs.duplicates[-1]
        typer.echo(f"{run.name}: starved objects {starved:.1f} %, duplicates {duplicates:.1f} %")
    for kind, found in page.suspects.items():
        dearest = f", the dearest {found[0].price:.2f}" if found else ""
        typer.echo(f"suspects, {kind.replace('_', ' ')}: {len(found)}{dearest}")
    typer.echo(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB)")


@app.command("queries")
def queries(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    model: Model,
    annotations: Annotations = None,
    number: Annotated[int, typer.Option("--number", min=1, help="Of queries, those of the best scores.")] = 6,
    distinct: Annotated[
        float, typer.Option("--distinct", min=0.0, max=1.0, metavar="IOU", help="Proposals above it repeat another.")
    ] = 0.7,
    device: Device = None,
    output: Annotated[Path, typer.Option("--output", metavar="FILE.html", help="The page.")] = Path("queries.html"),
) -> None:
    """Write a page on what the queries of a model do in an image.

    Where they look (sampling points and attention weights), how their boxes move from layer to layer, which proposals
    they begin from; with annotations what they are matched with, and what denoising would begin from.

    Example:

    hdetr-d2 report queries street.jpg --model output/run --annotations val.json
    """
    from hdetr_d2.detector import Detector
    from hdetr_d2.microscope.queries import look
    from hdetr_d2.microscope.queries_page import render
    from hdetr_d2.output import writing

    looked = look(Detector.load(model, device=device), image, annotations)
    with writing(output) as path:
        path.write_text(render(looked, image.name, number=number, distinct=distinct), encoding="utf-8")
    typer.echo(f"{looked.boxes.shape[1]} queries, {len(looked.matches)} matched annotations; wrote {output}")


@app.command("duplicates")
def duplicates(
    runs: Runs,
    threshold: Annotated[float, typer.Option("--threshold", metavar="IOU", help="Of suppression.")] = 0.6,
) -> None:
    """Say how much runs lose to detecting objects twice: their AP as it is, and after suppression within classes.

    Example:

    hdetr-d2 report duplicates output/a/seed1 output/b/seed1
    """
    from hdetr_d2.evaluation.duplicates import duplicates_table

    for line in duplicates_table([Path(run) for run in runs], threshold):
        typer.echo(line)


@app.command("errors")
def errors(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="An output folder that was evaluated.")] = None,
    annotations: Annotations = None,
    results: Annotated[
        Path | None, typer.Option("--results", metavar="FILE", help="Detections in COCO's results format.")
    ] = None,
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", min=0.0, max=1.0, help="Errors are counted from this score on.")
    ] = 0.3,
    json: Annotated[bool, typer.Option("--json", help="Print json, the confusion matrix included.")] = False,
) -> None:
    """Sort a model's errors: missed, wrong class, badly placed, duplicate, background.

    Of each kind, how many there are at the threshold, and how much AP50 would gain without it (TIDE).

    Examples:

    hdetr-d2 report errors output/run

    hdetr-d2 report errors --annotations val.json --results found/detections.json
    """
    if (run is None) == (annotations is None) or (annotations is None) != (results is None):
        raise ReportOptionError("give either RUN, or --annotations and --results")
    from hdetr_d2.evaluation.error_kinds import error_kinds
    from hdetr_d2.evaluation.ground_truth import load_ground_truth
    from hdetr_d2.evaluation.results import load_results
    from hdetr_d2.evaluation.runs import read_run

    if run is not None:
        evaluated = read_run(run)
        truth, detections, lvis = evaluated.truth, evaluated.detections(), evaluated.style == "lvis"
    else:
        assert annotations is not None
        assert results is not None
        truth = load_ground_truth(str(annotations))
        detections, lvis = load_results(results, truth), truth.not_exhaustive is not None
    shown = detections.select(detections.scores >= score_threshold)
    found = error_kinds(truth, detections, shown, lvis=lvis)
    if json:
        from dataclasses import asdict
        from json import dumps

        content = {**asdict(found), "confusion": found.confusion.tolist()}
        typer.echo(dumps(content | {"calibration_error": _number(found.calibration_error)}, indent=1))
        return
    typer.echo(f"{len(shown)} of {len(detections)} detections reach a score of {score_threshold:g}")
    typer.echo(f"{'':<28} {'errors':>8} {'AP50 lost':>10}")
    for kind, count in found.counts.items():
        typer.echo(f"{kind:<28} {count:>8} {found.ap_lost[kind]:>10.1f}")


def _number(value: float) -> float | None:
    """A number that json has."""
    return value if value == value else None

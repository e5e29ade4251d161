"""From the files of one or two runs to the page."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hdetr_d2.annotations import read_annotation_file, read_dataset_info, resolve_path
from hdetr_d2.data.image_files import locate_images
from hdetr_d2.output import writing

from ..errors import ReportError
from ..ground_truth import GroundTruth, load_ground_truth
from ..lvis import prepare_truth
from ..results import load_results
from ..runs import read_run
from .examples import make_example
from .figures import LongTailFigures, analyse, best_and_worst
from .page import Page, render

POSITIVES_FILE = "positives.json"
KINDS = ("one_to_one", "one_to_many")


@dataclass(frozen=True)
class DatasetFiles:
    """What runs were evaluated on.

    Args:
        gt: annotation file in LVIS format.
        images: image folder; None draws examples without their images.
        train: training annotations, for the number of images of each class; None takes ``gt`` for it.
        name: what the page calls it.
    """

    gt: str
    images: str | None
    train: str | None
    name: str


@dataclass(frozen=True)
class RunFiles:
    """What a run has written.

    Args:
        name: what the page calls it.
        results: detections in COCO's result format.
        positives: counted in training; None where they were not.
        max_dets: how many detections of an image count.
    """

    name: str
    results: str
    positives: str | None = None
    max_dets: int = 300


def files_of_run(folder: str | os.PathLike[str]) -> tuple[DatasetFiles, RunFiles]:
    """The files of an output folder of ``train_net.py``, as its config.yaml names them.

    Raises:
        ReportError: it is no such folder, it is not evaluated as LVIS is, or not at all.
        DatasetError: a file of the dataset is gone.
    """
    path = Path(folder)
    run = read_run(path, only="lvis")
    dataset = run.config.get("dataset") or {}
    val, train = dataset.get("val") or {}, dataset.get("train") or {}
    positives = path / POSITIVES_FILE
    files = DatasetFiles(
        gt=run.annotations,
        images=_if_there(val.get("images")),
        train=_if_there(train.get("json")),
        name=str(dataset.get("name", path.name)),
    )
    return files, RunFiles(
        name=path.name,
        results=str(run.results),
        positives=str(positives) if positives.is_file() else None,
        max_dets=run.max_dets,
    )


def _if_there(path: str | None) -> str | None:
    """A training file need not be where a run is evaluated, nor its images."""
    try:
        return None if path is None else resolve_path(path)
    except ValueError:
        return None


def write_report(dataset: DatasetFiles, runs: Sequence[RunFiles], output: str | os.PathLike[str]) -> Page:
    """Analyse runs and write the page.

    Args:
        dataset: what all of them were evaluated on.
        runs: one or two.
        output: the HTML file.

    Returns:
        What was written.

    Raises:
        ReportError, GroundTruthError, ResultsError, DatasetError: a file is missing or wrong.
        OutputError: the page cannot be written.
    """
    truth, image_counts = _truth(dataset)
    figures = [_analyse(run, truth, image_counts) for run in runs]
    page = _page(dataset, figures, truth)
    with writing(output) as path:
        path.write_text(render(page), encoding="utf-8")
    return page


def _truth(dataset: DatasetFiles) -> tuple[GroundTruth, dict[int, int]]:
    """The annotations with frequencies, and training images by category id."""
    truth = load_ground_truth(dataset.gt)
    info = read_dataset_info(dataset.train or dataset.gt)
    if truth.frequencies is None and dataset.train is not None:
        truth = replace(truth, frequencies=dict(zip(info.category_ids, info.frequencies)))
    if missing := truth.category_names.keys() - set(info.category_ids):
        raise ReportError(f"{dataset.train} does not have category {min(missing)} of {dataset.gt}")
    return truth, dict(zip(info.category_ids, info.image_counts))


def _analyse(run: RunFiles, truth: GroundTruth, image_counts: Mapping[int, int]) -> LongTailFigures:
    return analyse(
        run.name,
        truth,
        load_results(run.results, truth),
        image_counts=image_counts,
        positives=None if run.positives is None else read_positives(run.positives, truth),
        max_dets=run.max_dets,
    )


def read_positives(path: str | os.PathLike[str], truth: GroundTruth) -> dict[str, dict[int, int]]:
    """Positive queries by kind of matching and category id, from a run's positives.json.

    Raises:
        ReportError: it is not such a file, or is of another number of classes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        counts = {kind: [int(count) for count in content[kind]] for kind in KINDS}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path} does not hold counts of positive queries ({error!r})") from None
    ids = truth.category_ids.tolist()
    if any(len(each) != len(ids) for each in counts.values()):
        raise ReportError(f"{path} counts {len(counts[KINDS[0]])} classes, {truth.source} has {len(ids)}")
    return {kind: dict(zip(ids, each)) for kind, each in counts.items()}


def _page(dataset: DatasetFiles, figures: Sequence[LongTailFigures], truth: GroundTruth) -> Page:
    best, worst = best_and_worst(figures[0])
    table = read_annotation_file(dataset.gt)
    sizes = {int(i): (int(h), int(w)) for i, (h, w) in zip(table.image_ids, table.image_sizes)}
    files: dict[int, str] = {}
    if dataset.images is not None:
        paths, found = locate_images(table, resolve_path(dataset.images))
        files = {int(i): path for i, path, there in zip(table.image_ids, paths, found) if there}
    prepared = prepare_truth(truth)
    examples = {
        each.category_id: make_example(
            each, figures, prepared, image_files=files, image_sizes=sizes, best=number < len(best)
        )
        for number, each in enumerate([*best, *worst])
        if each.objects
    }
    return Page(
        runs=figures,
        dataset=dataset.name,
        num_images=len(truth.image_ids),
        best=best,
        worst=worst,
        examples=examples,
    )

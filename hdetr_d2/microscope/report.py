"""From the folders of recorded runs to the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hdetr_d2.annotations import read_annotation_file
from hdetr_d2.data import load_dataset_dicts
from hdetr_d2.data.datasets import class_names
from hdetr_d2.evaluation.runs import read_run_config
from hdetr_d2.output import writing

from .page import STYLES, ObservedRun, Page, render
from .reading import Recording, RecordingError, read_recording
from .statistics import by_epoch, by_object, positives_by_class
from .suspects import find_suspects


def write_report(runs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> Page:
    """Read what runs recorded and write the page.

    Args:
        runs: output folders; pictures and suspects are of the first one.
        output: the HTML file.

    Returns:
        What was written.

    Raises:
        RecordingError: a run has no recording, or there are too many.
        ReportError, DatasetError: the first run's config or dataset is gone.
        OutputError: the page cannot be written.
    """
    if not 1 <= len(runs) <= len(STYLES):
        raise RecordingError(f"the page shows one to {len(STYLES)} runs, not {len(runs)}")
    recordings = [read_recording(run) for run in runs]
    records, names = training_set(Path(runs[0]))
    page = Page(
        runs=[_observed(name, recording) for name, recording in zip(_names(runs), recordings)],
        class_names=names,
        records={record["image_id"]: record for record in records},
        suspects=find_suspects(recordings[0], records),
    )
    with writing(output) as path:
        path.write_text(render(page), encoding="utf-8")
    return page


def training_set(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The images and annotations that a run was trained on, and the names of its classes.

    Raises:
        ReportError, DatasetError: its config or the dataset is gone.
    """
    config = read_run_config(run)
    dataset = OmegaConf.select(config, "dataset") or {}
    train = dataset.get("train") or {}
    if train.get("json") is None:
        raise RecordingError(f"{run / 'config.yaml'} names no training annotations (dataset.train.json)")
    records = load_dataset_dicts(
        json_file=train["json"],
        image_root=train.get("images"),
        names=dataset.get("names"),
        invalid="drop",
        training=False,
        check_files="none",
    )
    return records, class_names(read_annotation_file(train["json"]), dataset.get("names"))


def _observed(name: str, recording: Recording) -> ObservedRun:
    epochs, objects = by_epoch(recording), by_object(recording)
    return ObservedRun(name, recording.is_two_stage, epochs, objects, positives_by_class(recording))


def _names(runs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Of their folders, as short as they differ."""
    paths = [Path(run).resolve() for run in runs]
    depth = 1
    while depth < 4 and len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]

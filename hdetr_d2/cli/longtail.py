"""The files of a long-tail report, out of what the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hdetr_d2.evaluation.longtail import DatasetFiles, ReportError, RunFiles, files_of_run


def find_files(
    runs: Sequence[str],
    *,
    annotations: Path | None,
    results: Sequence[Path],
    images: Path | None,
    train: Path | None,
    names: Sequence[str],
) -> tuple[DatasetFiles, list[RunFiles]]:
    """One or two runs, or files of detections, of one dataset.

    Raises:
        ReportError: it is something else.
    """
    if bool(runs) == bool(results) or (annotations is not None) != bool(results):
        raise ReportError("give output folders, or --annotations and --results")
    if annotations is not None:
        dataset = DatasetFiles(gt=str(annotations), images=_text(images), train=_text(train), name=annotations.stem)
        found = [RunFiles(name=file.stem, results=str(file)) for file in results]
    else:
        of_runs = [files_of_run(folder) for folder in runs]
        dataset, found = of_runs[0][0], [run for _, run in of_runs]
        if any(other.gt != dataset.gt for other, _ in of_runs):
            raise ReportError(f"the runs were evaluated on different files: {', '.join(d.gt for d, _ in of_runs)}")
    if len(found) > 2:
        raise ReportError(f"a report compares two runs, not {len(found)}")
    if names:
        if len(names) != len(found):
            raise ReportError(f"{len(names)} names are given for {len(found)} runs")
        found = [replace(run, name=name) for run, name in zip(found, names)]
    return dataset, found


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)

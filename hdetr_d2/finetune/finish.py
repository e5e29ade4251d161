"""After a training: thresholds of the classes, stored where they are used, and the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from omegaconf import DictConfig

from hdetr_d2.annotations.layouts import CocoSplit
from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.compat import load_config
from hdetr_d2.data import resolve_path
from hdetr_d2.description import DESCRIPTION_FILE, KEY, ModelDescription, write_description
from hdetr_d2.detector import Detector
from hdetr_d2.errors import UserError
from hdetr_d2.evaluation import Detections, GroundTruth, evaluate_coco, evaluate_lvis, load_ground_truth, load_results
from hdetr_d2.evaluation.metrics import Metrics
from hdetr_d2.evaluation.operating import OperatingPoint, Style, best_thresholds
from hdetr_d2.output import write_atomically
from hdetr_d2.prediction.evaluation import detect_all

from .report import REPORT_FILE, Report, write_report

FILES = ("model_best.pth", "model_final.pth")
"""That get thresholds; the first that there is speaks for the run."""


class FinishError(UserError, ValueError):
    """A folder that holds no finished run."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one file of weights does on the validation set.

    Args:
        file: its name.
        iteration: after which it was written.
        detections: all of them.
        point: the thresholds that were chosen.
    """

    file: str
    iteration: int
    detections: Detections
    point: OperatingPoint


def finish(folder: str | os.PathLike[str], *, device: str | None = None, say: Callable[[str], None] = print) -> Path:
    """Choose the thresholds of a run's files on its validation set, store them, and write ``report.html``.

    Args:
        folder: of a run that has ended.
        device: None is what the run says.
        say: gets what people should read.

    Returns:
        The report.

    Raises:
        UserError: the folder holds no finished run, or the validation set is not there any more.
    """
    path = Path(folder)
    config = path / "config.yaml"
    if not config.is_file():
        raise FinishError(f"{path} holds no run: there is no config.yaml")
    cfg = load_config(config)
    split = CocoSplit(Path(resolve_path(cfg.dataset.val.json)), Path(resolve_path(cfg.dataset.val.images)))
    truth = load_ground_truth(split.json, invalid=str(cfg.dataset.get("invalid", "error")), amodal=False)
    style: Style = "lvis" if cfg.dataset.get("format", "coco") == "lvis" else "coco"
    device = device or (None if cfg.train.device == "auto" else str(cfg.train.device))
    judged: list[Judgement] = []
    for name in FILES:
        if (path / name).is_file():
            judged.append(_judge(path / name, split, truth, style, device))
    if not judged:
        raise FinishError(f"{path} holds no {' or '.join(FILES)}; the training has not ended")
    first = judged[0]
    description = _store(path, judged)
    report = Report(
        folder=path,
        file=first.file,
        iteration=first.iteration,
        description=description,
        truth=truth,
        split=split,
        style=style,
        metrics=_metrics(cfg, style, truth, first.detections),
        detections=first.detections,
        point=first.point,
    )
    write_report(report, path / REPORT_FILE)
    overall = first.point.overall
    say(
        f"a score threshold was chosen for each class: with these, {first.file} reaches an F1 of "
        f"{_f1(first.point):.3f} on the validation set; one threshold for all ({overall.score:.3f}) would reach "
        f"{overall.f1:.3f}"
    )
    return path / REPORT_FILE


def _f1(point: OperatingPoint) -> float:
    """Of all classes together, each at its own threshold."""
    right = sum(each.recall * each.objects for each in point.classes.values())
    total = sum(each.shown + each.objects for each in point.classes.values())
    return 2 * right / total if total else 0.0


def _judge(file: Path, split: CocoSplit, truth: GroundTruth, style: Style, device: str | None) -> Judgement:
    iteration = int(load_checkpoint(file).get("iteration", 0))
    detector = Detector.load(file, score_threshold=0.0, device=device)
    ids = dict(enumerate(detector.description.category_ids))
    detections = load_results(detect_all(detector, split, category_of=ids), truth)
    point = best_thresholds(truth, detections, style=style)
    return Judgement(file=file.name, iteration=iteration, detections=detections, point=point)


def _metrics(cfg: DictConfig, style: Style, truth: GroundTruth, detections: Detections) -> Metrics:
    evaluate: Any = evaluate_lvis if style == "lvis" else evaluate_coco
    limit = cfg.dataloader.evaluator.get("max_dets_per_image")
    metrics: Metrics = evaluate(truth, detections, **({} if limit is None else {"max_dets": int(limit)}))["bbox"]
    return metrics


def _store(folder: Path, judged: Sequence[Judgement]) -> ModelDescription:
    """Write the thresholds into the files and into ``description.json``; the description of the first file."""
    written = []
    for each in judged:
        content = load_checkpoint(folder / each.file)
        description = ModelDescription.from_dict(content.get(KEY), str(folder / each.file))
        thresholds = tuple(each.point.classes[identity].score for identity in description.category_ids)
        described = replace(description, score_threshold=each.point.overall.score, score_thresholds=thresholds)
        content[KEY] = described.to_dict()

        def write(file: IO[bytes], content: dict[str, Any] = content) -> None:
            torch.save(content, file)

        write_atomically(os.fspath(folder / each.file), write)
        written.append(described)
    write_description(folder / DESCRIPTION_FILE, written[0])
    return written[0]

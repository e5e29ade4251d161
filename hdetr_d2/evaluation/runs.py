"""What an output folder of ``train_net.py`` has to evaluate: its detections, and what they are compared with."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hdetr_d2.annotations import resolve_path
from hdetr_d2.config_text import read_yaml

from . import coco, lvis
from .detections import Detections
from .errors import ReportError
from .ground_truth import GroundTruth, load_ground_truth
from .metrics import Metrics
from .results import load_results

__all__ = ["EvaluatedRun", "read_run", "read_run_config"]

Style = Literal["coco", "lvis"]


@dataclass(frozen=True)
class EvaluatedRun:
    """A run that has been evaluated.

    Args:
        folder: of its output.
        config: its config.yaml.
        results: its last detections, in COCO's result format.
        style: whose metrics they are for.
        annotations: the file that they are compared with.
        invalid: what becomes of that file's faulty annotations; None where Detectron2 registered the dataset.
        max_dets: how many detections of an image count.
    """

    folder: Path
    config: DictConfig
    results: Path
    style: Style
    annotations: str
    invalid: str | None
    max_dets: int

    @cached_property
    def truth(self) -> GroundTruth:
        """What the annotations say, as the run's evaluator saw it."""
        return load_ground_truth(self.annotations, invalid=self.invalid or "error", amodal=self.invalid is None)

    def detections(self) -> Detections:
        """The last detections."""
        return load_results(self.results, self.truth)

    def evaluate(self, detections: Detections) -> Metrics:
        """The metrics of some detections, as the run's evaluator gives them."""
        evaluate: Any = lvis.evaluate_lvis if self.style == "lvis" else coco.evaluate_coco
        metrics: OrderedDict[str, Metrics] = evaluate(self.truth, detections, max_dets=self.max_dets)
        return metrics["bbox"]


def read_run(folder: str | os.PathLike[str], *, only: Style | None = None) -> EvaluatedRun:
    """Find the files of an output folder, as its config.yaml names them.

    Args:
        folder: of the run.
        only: refuse runs that are evaluated in another style.

    Raises:
        ReportError: it is no such folder, or has not been evaluated.
        DatasetError: the annotation file is gone.
    """
    path = Path(folder)
    config = read_run_config(path)
    style = _style(config)
    if only is not None and style != only:
        raise ReportError(f'{path}: the report is for datasets in {only.upper()} format, this one is "{style}"')
    results = _results(path, config, style)
    evaluator = _get(config, "dataloader.evaluator") or {}
    name = evaluator.get("dataset_name")
    if name in DatasetCatalog:  # one that Detectron2 brings along
        annotations, invalid = MetadataCatalog.get(name).get("json_file", None), None
    else:
        annotations, invalid = _get(config, "dataset.val.json"), str(_get(config, "dataset.invalid") or "error")
    if annotations is None:
        raise ReportError(
            f"{path / 'config.yaml'} has no dataset.val.json, and no dataset of its evaluator's name ({name}) is "
            "registered here: there is nothing to compare the detections with"
        )
    return EvaluatedRun(
        folder=path,
        config=config,
        results=results,
        style=style,
        annotations=resolve_path(annotations),
        invalid=invalid,
        max_dets=evaluator.get("max_dets_per_image") or (300 if style == "lvis" else 100),
    )


def read_run_config(path: Path) -> DictConfig:
    """The config.yaml of an output folder.

    Raises:
        ReportError: it is no such folder, or the file is damaged.
    """
    file = path / "config.yaml"
    if not file.is_file():
        raise ReportError(f"{path} is no output folder of a run: it has no config.yaml")
    try:
        config = OmegaConf.create(read_yaml(file.read_bytes(), str(file)), flags={"allow_objects": True})
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ReportError(f"{file} cannot be read ({error})") from error
    if not isinstance(config, DictConfig):
        raise ReportError(f"{file} is no config of a run: it holds no keys")
    return config


def _get(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise ReportError(f"the run's config.yaml has no usable {key} ({error})") from error


def _style(config: DictConfig) -> Style:
    """That of the evaluator, and where the config does not say it, of the dataset."""
    said = _get(config, "dataloader.evaluator._target_") or _get(config, "dataset.format")
    return "lvis" if "lvis" in str(said).lower() else "coco"


def _results(path: Path, config: DictConfig, style: Style) -> Path:
    name = {"coco": coco.RESULTS_FILE, "lvis": lvis.RESULTS_FILE}[style]
    folders = [path / "inference"]
    if written := _get(config, "dataloader.evaluator.output_dir"):
        folders.append(Path(str(written)))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ReportError(
        f"{path}: there is no {folders[0] / name}; evaluate the run with train_net.py --eval-only --resume"
    )

"""What is exported: a trained model, or one of a config that is newly initialised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig

from hdetr_d2.checkpoint import CheckpointError, LoadReport
from hdetr_d2.checkpoint.class_heads import FIRST_HEAD, ClassHeads, Scoring
from hdetr_d2.checkpoint.convert import read_state
from hdetr_d2.description import ModelDescription, classes_of
from hdetr_d2.errors import UserError
from hdetr_d2.modeling import DETR

PHOTOGRAPH = (480, 640)
"""(H, W), COCO's most frequent size."""
COCO_CLASSES = 80


class ExportError(UserError, ValueError):
    """A model that cannot be exported; the message says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Exportable:
    """A model to export.

    Args:
        model: with its weights, in evaluation mode on the CPU.
        cfg: its config.
        description: of it.
    """

    model: DETR
    cfg: DictConfig
    description: ModelDescription

    @property
    def class_names(self) -> Sequence[str]:
        """Of the model's classes, in their order."""
        return self.description.class_names


def trained(source: str, overrides: Sequence[str] = (), *, download: bool | None = None) -> Exportable:
    """A model with its weights.

    Args:
        source: as `detector.open_source` takes it.
        overrides: ``key=value`` for its config.
        download: as of `detector.open_source`.

    Raises:
        UserError: it cannot be loaded, or is no model of this family.
    """
    from hdetr_d2.detector import open_source
    from hdetr_d2.detector.weights import load_weights
    from hdetr_d2.engine.overrides import apply_overrides

    opened = open_source(source, download=download)
    cfg = apply_overrides(opened.cfg, list(overrides)) if overrides else opened.cfg
    model = _built(cfg, source)
    load_weights(model, opened.state, opened.average, opened.path)
    description = _changed(opened.description, cfg) if overrides else opened.description
    return Exportable(model=model.eval(), cfg=cfg, description=description)


def untrained(config: str, overrides: Sequence[str] = ()) -> Exportable:
    """A newly initialised model of a config, for COCO's 80 classes where nothing says how many.

    Args:
        config: a file, or the name of a packaged one.
        overrides: ``key=value`` for it.

    Raises:
        UserError: the config cannot be loaded, or is of no model of this family.
    """
    cfg = load_config(config, overrides)
    if cfg.dataset.num_classes is None:
        cfg.dataset.num_classes = COCO_CLASSES
    return Exportable(model=_built(cfg, config).eval(), cfg=cfg, description=_described(cfg))


def of_config(config: str, weights: str | None, overrides: Sequence[str] = ()) -> Exportable:
    """A model of a config, with weights that say nothing of themselves.

    Args:
        config: a file, or the name of a packaged one.
        weights: a file with our names; None leaves the model newly initialised. It has the classes of the weights
            where the config does not say how many.
        overrides: ``key=value`` for the config.

    Raises:
        UserError: the config or the weights are not what they should be, or do not fit.
    """
    cfg = load_config(config, overrides)
    state = {} if weights is None else read_state(weights)[1]
    if cfg.dataset.num_classes is None:
        if FIRST_HEAD not in state:
            raise ExportError("how many classes? Give --weights with our names, or dataset.num_classes=N")
        cfg.dataset.num_classes = ClassHeads.of(state, Scoring.of_config(cfg.model)).num_classes
    model = _built(cfg, config)
    if weights is not None:
        report = LoadReport.of(state, model)
        try:
            report.check_something_fits(weights, state)
            report.check_whole(weights, model)
        except CheckpointError as error:
            raise ExportError(f"{weights} does not fit {config}: {error}") from error
        model.load_state_dict({key: state[key] for key in report.kept}, strict=False)
    return Exportable(model=model.eval(), cfg=cfg, description=_described(cfg))


def load_config(config: str, overrides: Sequence[str]) -> DictConfig:
    """A config with changes.

    Raises:
        UserError: it cannot be loaded.
    """
    from hdetr_d2.engine.config import load

    return load(config, list(overrides))


def _described(cfg: DictConfig) -> ModelDescription:
    """What a config says of its model; the classes are numbered where there is no annotation file to name them."""
    from hdetr_d2 import __version__

    count = int(cfg.model.num_classes)
    names, ids = classes_of(cfg)
    known = len(names) == count
    if not known:
        names, ids = [f"class {index}" for index in range(count)], list(range(count))
    return ModelDescription.of(cfg, class_names=names, category_ids=ids, version=__version__, names_known=known)


def _changed(description: ModelDescription, cfg: DictConfig) -> ModelDescription:
    """The description of a model whose config was changed: classes and thresholds stay."""
    now = ModelDescription.of(
        cfg,
        class_names=description.class_names,
        category_ids=description.category_ids,
        version=description.version,
        names_known=description.names_known,
    )
    return replace(now, score_threshold=description.score_threshold, score_thresholds=description.score_thresholds)


def _built(cfg: DictConfig, name: str) -> DETR:
    model = instantiate(cfg.model)
    if not isinstance(model, DETR):
        raise ExportError(f"{name} is a {type(model).__name__}; only models of the DETR family are exported")
    return model


def evaluation_size(cfg: DictConfig) -> tuple[int, int]:
    """(H, W) that the config's evaluation gives a `PHOTOGRAPH`.

    Raises:
        ExportError: the config does not say it.
    """
    try:
        augmentations = T.AugmentationList(list(instantiate(cfg.dataloader.test.mapper.augmentations)))
    except Exception as error:  # whatever a user's own config does
        raise ExportError(f"the config does not say at what size it evaluates ({error}); give --size H W") from error
    image = T.AugInput(np.zeros((*PHOTOGRAPH, 3), np.uint8))
    augmentations(image)
    height, width = image.image.shape[:2]
    return height, width

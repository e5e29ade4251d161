"""What is looked at before the first training step, so that it is not found out after an epoch."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..data import TrainLoader
from .errors import ConfigError
from .evaluation import Evaluation, check_best_metric
from .settings import TrainSettings

logger = logging.getLogger(__name__)


def check_before_training(
    cfg: DictConfig, settings: TrainSettings, *, loader: Any, model: nn.Module, evaluation: Evaluation | None
) -> None:
    """Look at everything that a training will use; its first step comes next.

    Args:
        evaluation: None where there is no validation set.

    Raises:
        UserError: it cannot succeed; the message names the key, file or item, and what to do.
    """
    check_classes(model, cfg.dataset.get("num_classes"), source=str(cfg.dataset.train.json))
    check_objects(loader, model, source=str(cfg.dataset.train.json))
    if evaluation is not None:
        check_best_metric(settings.best_metric, evaluation.rehearse())
        return
    if settings.ema is not None and settings.ema.restart is not None:
        raise ConfigError(
            "train.ema.restart goes back to the best evaluation, but dataset.val.json is null; set either"
        )
    logger.warning("dataset.val.json is null: nothing is evaluated, and there will be no model_best.pth")


def check_classes(model: nn.Module, num_classes: int | None, *, source: str) -> None:
    """Refuse a model of fewer classes than the data set has.

    Args:
        model: one that does not say ``num_classes`` is taken as it is.
        num_classes: of the data set; None where it is not known.
        source: the annotation file, for messages.

    Raises:
        ConfigError: there are objects that the model has no class for.
    """
    of_model = getattr(model, "num_classes", None)
    if isinstance(of_model, int) and num_classes is not None and of_model < num_classes:
        raise ConfigError(
            f"model.num_classes is {of_model} and {source} has {num_classes} classes; leave model.num_classes out, it "
            "follows from the data set"
        )


def check_objects(loader: Any, model: nn.Module, *, source: str) -> None:
    """Refuse a training set without an object to learn; warn of images with more objects than the model has queries.

    Args:
        loader: of training; one of a user's own is not looked at.
        source: the annotation file, for messages.

    Raises:
        ConfigError: there is no object.
    """
    if not isinstance(loader, TrainLoader):
        return
    counts = loader.object_counts()
    if not counts.any():
        raise ConfigError(
            f"{source}: no object to learn in any of its {len(counts)} images (crowds are not learned, and those that "
            "dataset.invalid=drop leaves out neither); see that the file has annotations with boxes and iscrowd 0"
        )
    queries = num_queries(model)
    if queries and counts.max() > queries:
        crowded = int((counts > queries).sum())
        logger.warning(
            "%s: %d image(s) have more objects than the model's %d queries, up to %d (%s): some are never learned or "
            "found; raise num_queries",
            source,
            crowded,
            queries,
            counts.max(),
            loader.file_name(int(counts.argmax())),
        )


def num_queries(model: nn.Module) -> int:
    """The queries of a model's primary group; 0 where it does not say."""
    specs = getattr(getattr(getattr(model, "transformer", None), "query_source", None), "specs", ())
    return int(specs[0].num_queries) if specs else 0

"""Queries of distinct places, and the class loss that goes with them, for any two-stage model."""

from typing import Any

from detectron2.config import LazyCall as L

from hdetr_d2.losses import MatchabilityAwareLoss


def make_distinct(model: Any, *, threshold: float) -> None:
    """Let proposals that overlap a better one by more than the threshold step back."""
    model.transformer.query_source.distinct = threshold


def use_matchability_loss(model: Any) -> None:
    """Give a config DEIM's class loss, in which a poor match counts by how poor it is."""
    model.criterion.classification = L(MatchabilityAwareLoss)(gamma=1.5)
    model.criterion.class_weight = 1.0

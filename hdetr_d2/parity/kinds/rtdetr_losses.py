"""What the criteria of RT-DETR, RT-DETRv2 and DEIM can do beyond their published settings."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor

from hdetr_d2.losses import ClassificationLoss, MatchabilityAwareLoss, Positives, SigmoidFocalLoss, VarifocalLoss
from hdetr_d2.matching import HungarianMatcher, MatchingCost, StagedMatcher
from hdetr_d2.matching.solver import Assignment
from hdetr_d2.supervision import PRIMARY, OneToOne, Rule


def class_loss(
    name: str, *, alpha: float, gamma: float, mal_weight: float | None, box_weights: str | None
) -> tuple[DictConfig, float]:
    """The class loss that ``losses`` names, and what it must be multiplied by.

    Args:
        name: ``"vfl"``, ``"mal"``, ``"focal"`` or ``"bce"``.
        alpha, gamma: of the first and third; the second has only gamma, the last neither.
        mal_weight: of background, in the second.
        box_weights: ``"iou"`` or ``"giou"``, which the GIoU loss of a match is multiplied by; None for neither.
    """
    losses: dict[str, tuple[DictConfig, float]] = {
        "vfl": (L(VarifocalLoss)(alpha=alpha, gamma=gamma), 1.0),
        "mal": (L(MatchabilityAwareLoss)(gamma=gamma, alpha=mal_weight), 1.0),
        "focal": (L(SigmoidFocalLoss)(alpha=alpha, gamma=gamma), 1.0),
        "bce": (L(SigmoidFocalLoss)(alpha=0.5, gamma=0.0), 2.0),  # both sides count half
    }
    loss, factor = losses[name]
    return (loss if box_weights is None else L(WeighedByIoU)(loss=loss, generalized=box_weights == "giou")), factor


class CostWeights(Protocol):
    """Options of a matching cost, as the files of these models have them."""

    cost_class: float
    cost_bbox: float
    cost_giou: float
    alpha: float
    gamma: float


def matching_cost(options: CostWeights) -> DictConfig:
    """The config of a matching cost."""
    cost: DictConfig = L(MatchingCost)(
        class_weight=options.cost_class,
        l1_weight=options.cost_bbox,
        giou_weight=options.cost_giou,
        alpha=options.alpha,
        gamma=options.gamma,
    )
    return cost


class WeighedByIoU(ClassificationLoss):
    """A class loss beside which the GIoU loss of each match is multiplied by its IoU (``boxes_weight_format``).

    Args:
        loss: the class loss.
        generalized: whether both take the generalized IoU.
    """

    needs_iou = True

    def __init__(self, *, loss: ClassificationLoss, generalized: bool) -> None:
        super().__init__()
        self.loss = loss
        self.generalized_iou = generalized

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """As the class loss."""
        return self.loss(logits, positives)

    def box_weights(self, logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor]:
        """As the base class says."""
        assert positives.iou is not None
        iou = positives.iou.detach().to(logits.dtype)
        return torch.ones_like(iou), iou


@dataclass(frozen=True, kw_only=True)
class SoftmaxCost:
    """A matching cost whose class cost is minus the softmax over classes.

    Of models without "no object" (``use_focal_loss`` false).

    Args:
        cost: its weights.
    """

    cost: MatchingCost

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """As of ``MatchingCost``."""
        weights = self.cost
        softmax = MatchingCost(
            class_weight=weights.class_weight,
            l1_weight=weights.l1_weight,
            giou_weight=weights.giou_weight,
            score="softmax",
        )
        return softmax(logits, boxes, labels, target_boxes)


class LastLayerMatcher(StagedMatcher):
    """Matches the last of the layers that it is asked for and gives all of them its pairs.

    Args:
        cost: of a pair.
    """

    def __init__(self, *, cost: Any) -> None:
        self.matcher = HungarianMatcher(cost=cost)

    def propose(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, ...]:
        """The costs of the last layer, for each."""
        cost = self.matcher.cost(logits[-1], boxes[-1], labels, target_boxes)
        return (cost.expand(len(logits), *cost.shape),)

    def finish(self, *proposed: Tensor) -> Assignment:
        """As the base class says."""
        return Assignment(*self.matcher.solve(proposed[0]), 0)


class SharedMatches(OneToOne):
    """One-to-one matching by the last layer alone (``share_matched_indices``); proposals have their own.

    Args:
        cost: the matching cost.
    """

    def __init__(self, *, cost: Any = None) -> None:
        super().__init__(cost=cost)
        self.shared = Rule(matcher=LastLayerMatcher(cost=cost))

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """As the base class says."""
        return self.shared if group == PRIMARY else self.one_to_one

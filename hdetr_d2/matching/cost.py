"""The cost of assigning a target to a query."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hdetr_d2.arguments import Score, check_choice, check_within
from hdetr_d2.layers import cxcywh_to_xyxy, generalized_box_iou

from .compiled import is_compiled


def focal_class_cost(logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Class cost of the sigmoid models: the focal loss of a positive less that of a negative (Deformable DETR).

    Args:
        logits: (..., N, K).
        labels: (M,) int64 in [0, K).

    Returns:
        (..., N, M), float32. Only the M asked columns are computed.
    """
    p = logits.mT[..., labels, :].contiguous().sigmoid().mT
    positive = alpha * (1 - p) ** gamma * -(p + 1e-8).log()
    negative = (1 - alpha) * p**gamma * -(1 - p + 1e-8).log()
    return positive - negative


def softmax_class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Class cost of DETR: minus the probability of the target's class.

    Args:
        logits: (..., N, K + 1), the last column "no object".
        labels: (M,) int64 in [0, K).

    Returns:
        (..., N, M) in [-1, 0], float32.
    """
    return -logits.softmax(-1)[..., labels]


def l1_box_cost(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """Sum of absolute differences of the four coordinates.

    Args:
        boxes: (..., N, 4); ``target_boxes``: (M, 4); any format and unit, the same for both.

    Returns:
        (..., N, M). Added up a coordinate at a time: no (N, M, 4) tensor, and no ``cdist``, which is slow for p = 1.
    """
    rows = boxes.mT[..., None, :, :]
    columns = target_boxes[..., None]
    cost = (rows[..., 0, :] - columns[:, 0]).abs_()
    for i in range(1, 4):
        cost += (rows[..., i, :] - columns[:, i]).abs_()
    return cost.mT


class PairCost(Protocol):
    """What a pair of a query and a target costs; compares equal where it costs the same."""

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """Logits (..., N, K), boxes (..., N, 4), labels (M,) and target boxes (M, 4) of an image -> (..., N, M)."""


@dataclass(frozen=True, kw_only=True)
class MatchingCost:
    """Weighted sum of class, L1 and generalized-IoU cost (DETR, eq. 2; weights of Deformable DETR).

    Args:
        class_weight: of the class cost; 2 in the sigmoid models, 1 in DETR.
        l1_weight: of the L1 distance of normalised cxcywh boxes.
        giou_weight: of the negative generalized IoU.
        score: ``"sigmoid"`` (focal class cost) or ``"softmax"``.
        alpha, gamma: of the focal class cost.
    """

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    score: Score = "sigmoid"
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_choice(self, Score, score=self.score)
        weights = {"class_weight": self.class_weight, "l1_weight": self.l1_weight, "giou_weight": self.giou_weight}
        check_within(self, 0.0, math.inf, **weights, gamma=self.gamma)
        check_within(self, 0.0, 1.0, alpha=self.alpha)

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """Cost of every (query, target) pair of one image.

        Args:
            logits: (..., N, K); leading dimensions, such as decoder layers, are costed at once.
            boxes: (..., N, 4) cxcywh in [0, 1].
            labels: (M,) int64.
            target_boxes: (M, 4) cxcywh in [0, 1].

        Returns:
            (..., N, M), float32 or wider whatever the input; not finite where a prediction is not. The costs of one
            target are side by side in memory, as the solver reads them.
        """
        with torch.autocast(device_type=logits.device.type, enabled=False):
            logits, boxes, target_boxes = (_widen(x) for x in (logits, boxes, target_boxes))
            if _on_compiled_path(logits, boxes, target_boxes):
                return self._compiled(logits, boxes, labels, target_boxes)
            l1 = l1_box_cost(boxes, target_boxes)
            giou = generalized_box_iou(cxcywh_to_xyxy(boxes)[..., None, :, :], cxcywh_to_xyxy(target_boxes)[:, None])
            box_cost = self.l1_weight * l1 - self.giou_weight * giou.mT
            return self.class_weight * self._class_cost(logits, labels) + box_cost

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K), of softmax (..., K + 1), as scores (..., K) in [0, 1]."""
        return logits.sigmoid() if self.score == "sigmoid" else logits.softmax(-1)[..., :-1]

    def class_costs(self, logits: Tensor) -> Tensor:
        """The weighted class cost of every class: logits (..., N, K), of softmax (..., N, K + 1) -> (..., N, K)."""
        count = logits.shape[-1] - (self.score == "softmax")
        return self.class_weight * self._class_cost(logits, torch.arange(count, device=logits.device))

    def _class_cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.score == "sigmoid":
            return focal_class_cost(logits, labels, alpha=self.alpha, gamma=self.gamma)
        return softmax_class_cost(logits, labels)

    def _compiled(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """The same in one pass: class costs once a class that occurs, a target's costs side by side."""
        classes, class_of = labels.unique(return_inverse=True)
        class_cost = (self.class_weight * self._class_cost(logits, classes)).mT
        layers = math.prod(logits.shape[:-2])
        class_cost = class_cost.reshape(layers, *class_cost.shape[-2:])
        boxes = boxes.reshape(layers, *boxes.shape[-2:])
        weights = self.l1_weight, self.giou_weight
        costs = torch.ops.hdetr_d2.pair_costs(class_cost, class_of, boxes, target_boxes, *weights)
        return costs.view(*logits.shape[:-2], *costs.shape[1:]).mT


def _on_compiled_path(*tensors: Tensor) -> bool:
    return is_compiled() and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

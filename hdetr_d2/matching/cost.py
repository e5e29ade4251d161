"""The cost of assigning a target to a query."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hdetr_d2.arguments import Score, check_choice, check_within
from hdetr_d2.layers import cxcywh_to_xyxy, generalized_box_iou

from .compiled import is_compiled
from .scored import Scored

_MOST_PAIRS = 2**25
"""Pairs that are costed at once, of which each costs a few floats besides; more in crowds are, image after image."""


def focal_class_cost(logits: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Class cost of the sigmoid models: the focal loss of a positive less that of a negative (Deformable DETR).

    Args:
        logits: (...), those of the targets' classes.

    Returns:
        (...), of the same dtype.
    """
    p = logits.sigmoid()
    positive = alpha * (1 - p) ** gamma * -(p + 1e-8).log()
    negative = (1 - alpha) * p**gamma * -(1 - p + 1e-8).log()
    return positive - negative


class PairCost(Protocol):
    """What a pair of a query and a target costs; compares equal where it costs the same.

    One that has ``MatchingCost.of_batch`` besides is called once a step; any other once an image and group.
    """

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
        leading, layers = logits.shape[:-2], math.prod(logits.shape[:-2])
        logits, boxes = (x.reshape(layers, 1, *x.shape[-2:]) for x in (logits, boxes))
        scored = Scored(logits, boxes, labels, target_boxes, torch.zeros_like(labels), (len(labels),))
        (costs,) = self.of_batch([scored])
        return costs.view(len(labels), *leading, -1 if costs.numel() else logits.shape[-2]).movedim(0, -1)

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K), of softmax (..., K + 1), as scores (..., K) in [0, 1]."""
        return logits.sigmoid() if self.score == "sigmoid" else logits.softmax(-1)[..., :-1]

    def class_costs(self, logits: Tensor) -> Tensor:
        """The weighted class cost of every class: logits (..., K), of softmax (..., K + 1) -> (..., K)."""
        logits = _widen(logits)
        return self._class_cost(logits if self.score == "sigmoid" else self.scores(logits))

    @torch.no_grad()
    def of_batch(self, groups: Sequence[Scored]) -> list[Tensor]:
        """Cost of every pair of a query and a target of its image, by as many calls whatever the number of images.

        Args:
            groups: of the same images and targets, whose labels alone may differ.

        Returns:
            (M, L, N) for each group, as of ``__call__``.
        """
        with torch.autocast(device_type=groups[0].logits.device.type, enabled=False):
            if _on_compiled_path(groups):
                return self._compiled(groups)
            parts = [self._by_tensors(part) for part in _parts(groups)]
            return [torch.cat(costs) if len(costs) > 1 else costs[0] for costs in zip(*parts)]

    def _picked(self, group: Scored, image: Tensor, label: Tensor) -> Tensor:
        """What class costs are made of, (U, L, N) of U images and classes: logits, or probabilities of a softmax."""
        logits = group.logits if self.score == "sigmoid" else _widen(group.logits).softmax(-1)
        return _widen(logits[:, image, :, label])

    def _class_cost(self, picked: Tensor) -> Tensor:
        """Weighted class cost of what ``_picked`` gives, which DETR's models take as it is: minus the probability."""
        cost = focal_class_cost(picked, alpha=self.alpha, gamma=self.gamma) if self.score == "sigmoid" else -picked
        return self.class_weight * cost

    def _by_tensors(self, groups: Sequence[Scored]) -> list[Tensor]:
        """All groups side by side, each target beside the queries of its image."""
        image, target_boxes = groups[0].image, _widen(groups[0].target_boxes)[:, None]
        class_cost = self._class_cost(torch.cat([self._picked(g, image, g.labels).flatten(1) for g in groups], 1))
        boxes = torch.cat([_widen(g.boxes).transpose(0, 1).flatten(1, 2) for g in groups], 1)[image]
        l1 = (boxes - target_boxes).abs().sum(-1)
        giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
        costs = class_cost + (self.l1_weight * l1 - self.giou_weight * giou)
        parts = costs.split([g.queries for g in groups], 1)
        return [part.unflatten(1, (len(g.logits), g.logits.shape[2])) for part, g in zip(parts, groups)]

    def _compiled(self, groups: Sequence[Scored]) -> list[Tensor]:
        """The same on the CPU, pairs in one pass and class costs once a class that occurs in an image."""
        asked = [_classes_of_images(g) for g in groups]
        picked = [self._picked(g, classes.image, classes.label) for g, classes in zip(groups, asked)]
        class_costs = self._class_cost(torch.cat([x.flatten() for x in picked])).split([x.numel() for x in picked])
        weights = self.l1_weight, self.giou_weight
        results = []
        for group, classes, of_group, like in zip(groups, asked, class_costs, picked):
            of_images = of_group.view(like.shape).transpose(0, 1).split(classes.counts, 1)
            columns = classes.column.split([count for count in group.counts if count])
            costs = [
                torch.ops.hdetr_d2.pair_costs(costs, column, boxes.float(), target_boxes.float(), *weights)
                for costs, column, (_, boxes, _, target_boxes) in zip(of_images, columns, group.images())
            ]
            none = like.new_zeros(0, *like.shape[1:])
            results.append(torch.cat([x.transpose(0, 1) for x in costs]) if costs else none)
        return results


class _Classes(NamedTuple):
    """The classes that occur in each image.

    Args:
        image, label: (U,) int64 of each.
        counts: how many an image with targets has.
        column: (M,) int64, that of each target among those of its image.
    """

    image: Tensor
    label: Tensor
    counts: list[int]
    column: Tensor


def _classes_of_images(group: Scored) -> _Classes:
    size = group.logits.shape[-1]
    keys, place = (group.image * size + group.labels).unique(return_inverse=True)
    image = keys // size
    counts = image.bincount(minlength=len(group.counts))
    first = counts.cumsum(0) - counts
    return _Classes(image, keys % size, counts[counts > 0].tolist(), place - first[group.image])


def _parts(groups: Sequence[Scored]) -> Iterator[list[Scored]]:
    """The groups in as many images at a time as are few pairs."""
    queries, counts = sum(g.queries for g in groups), groups[0].counts
    start = pairs = 0
    for image, count in enumerate(counts):
        if pairs and pairs + count * queries > _MOST_PAIRS:
            yield [g.part(start, image) for g in groups]
            start, pairs = image, 0
        pairs += count * queries
    yield [g.part(start, len(counts)) for g in groups] if start else list(groups)


def _on_compiled_path(groups: Sequence[Scored]) -> bool:
    tensors = [x for g in groups for x in (g.logits, g.boxes, g.target_boxes)]
    return is_compiled() and all(x.device.type == "cpu" and x.dtype != torch.float64 for x in tensors)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

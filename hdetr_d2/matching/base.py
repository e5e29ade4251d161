"""What a matcher is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .cost import MatchingCost, PairCost
from .scored import Scored
from .solver import Assignment


class Matcher(ABC):
    """Decides which queries of one image are supervised by which target."""

    may_repeat = False
    """Whether a query may be given to several targets: its boxes then learn all of them, its class the last."""

    score: Literal["sigmoid", "softmax"] | None = None
    """The kind of score that it reads from logits; None where it reads none."""

    one_to_one: bool = False
    """Whether no target gets more than one query, and no query more than one target."""

    @abstractmethod
    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Match the queries of one image.

        Args:
            logits: (N, K).
            boxes: (N, 4) cxcywh in [0, 1].
            labels: (M,) int64 target classes.
            target_boxes: (M, 4) cxcywh in [0, 1].

        Returns:
            ``query_indices`` (P,) and ``target_indices`` (P,), int64 on the CPU.
        """


class StagedMatcher(Matcher):
    """A matcher that works where the predictions are, on all layers at once, and leaves little to copy to the host."""

    @abstractmethod
    def propose(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, ...]:
        """Do what needs no host.

        Args:
            logits: (L, N, K).
            boxes: (L, N, 4) cxcywh in [0, 1].
            labels: (M,) int64 target classes, M > 0.
            target_boxes: (M, 4) cxcywh in [0, 1].

        Returns:
            Tensors whose first dimension is L, on the device of the predictions.
        """

    @abstractmethod
    def finish(self, *proposed: Tensor) -> Assignment:
        """Match one layer, from its part of what ``propose`` returned, on the CPU."""

    def propose_batch(self, scored: Scored) -> list[Tensor]:
        """``propose`` for the images of a batch that have targets; one after another, unless a matcher can do better.

        Returns:
            Tensors of any kind, all of which ``finish_batch`` is given, on the CPU.
        """
        return [x for arguments in scored.images() for x in self.propose(*arguments)]

    def finish_batch(self, proposed: Sequence[Tensor], counts: Sequence[int]) -> list[list[Assignment]]:
        """Match all layers of each image that has targets, of ``counts`` each."""
        images = sum(count > 0 for count in counts)
        each = len(proposed) // max(images, 1)
        parts = [proposed[i * each : (i + 1) * each] for i in range(images)]
        return [[self.finish(*of_layer) for of_layer in zip(*part)] for part in parts]

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As the base class says."""
        if not len(labels):
            none = torch.zeros(0, dtype=torch.int64)
            return none, none
        proposed = self.propose(logits[None], boxes[None], labels, target_boxes)
        solution = self.finish(*(x[0].cpu() for x in proposed))
        return solution.rows, solution.columns


class CostMatcher(Matcher):
    """A matcher that depends on nothing but a cost matrix, so that many can be copied to the host at once.

    Args:
        cost: how pairs are costed; None is Deformable DETR's.
    """

    k: int | None = None
    """How many queries each target gets, where that is a number."""
    is_optimal = False
    """Whether ``solve`` is the optimum of the assignment in which every target gets ``k`` queries: a step solves all of
    those at once and from candidates. ``solve`` of any other is called with whole matrices."""

    def __init_subclass__(cls) -> None:
        """A ``solve`` of one's own is optimal only if its class says so, be it by the former name ``copies``."""
        super().__init_subclass__()
        former = cls.__dict__.get("copies", cls)
        if former is None or isinstance(former, int):
            cls.k, cls.is_optimal = former, former is not None
            delattr(cls, "copies")
        elif "solve" in cls.__dict__ and "is_optimal" not in cls.__dict__:
            cls.is_optimal = False

    def __init__(self, *, cost: PairCost | None = None) -> None:
        self.cost: PairCost = cost if cost is not None else MatchingCost()
        self.score = getattr(self.cost, "score", None)
        self.one_to_one = self.one_to_one or self.copies == 1

    @property
    def copies(self) -> int | None:
        """``k`` of a matcher that ``is_optimal``, None of any other: the two by their former name."""
        return self.k if self.is_optimal else None

    @copies.setter
    def copies(self, value: int | None) -> None:
        self.k, self.is_optimal = value, value is not None

    def at(self, classes: Tensor) -> "CostMatcher":
        """What matches targets of these classes, (M,) int64: itself, unless the classes decide."""
        del classes
        return self

    @abstractmethod
    def solve(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Match by a cost matrix.

        Args:
            cost: (N, M) on the CPU. A pair that is not finite is never matched.

        Returns:
            ``query_indices`` (P,) ascending and ``target_indices`` (P,), int64.
        """

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As the base class says."""
        return self.at(labels).solve(self.cost(logits, boxes, labels, target_boxes).cpu())

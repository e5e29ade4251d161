"""What the criterion does for one group of queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from hdetr_d2.layers import standing_queries
from hdetr_d2.matching.step import Matches, MatchRequest
from hdetr_d2.structures import BatchedTargets, KnownMatches, Predictions
from hdetr_d2.supervision import PRIMARY, Rule, Supervision

from .classification import ClassificationLoss


@dataclass(frozen=True)
class Step:
    """What all groups of a step have in common.

    The labels of ``targets`` are positions in ``columns``; those of ``classes`` are classes.
    """

    targets: BatchedTargets
    classes: BatchedTargets
    supervision: Supervision
    progress: float
    columns: Tensor | None


@dataclass(frozen=True)
class Job:
    """The losses of one group of queries, or of the encoder's proposals.

    Args:
        group: its name; None for proposals.
        suffixes: of the keys of each layer.
        rules: of each layer; none where matches are known.
        request: predictions and targets.
        loss: of its classes.
        columns: (C',) int64, the classes that its logits are of; None for all.
    """

    group: str | None
    suffixes: list[str]
    rules: list[Rule]
    request: MatchRequest
    loss: ClassificationLoss
    columns: Tensor | None

    @classmethod
    def of_group(cls, group: str, prediction: Predictions, step: Step, loss: ClassificationLoss) -> Self:
        """That of a group of the decoder's queries."""
        depth = prediction.logits.shape[0]
        ending = "" if group == PRIMARY else f"_{group}"
        suffixes = [f"_{layer}{ending}" for layer in range(depth - 1)] + [ending]
        rules: list[Rule] = []
        if prediction.known is None:
            rules = [step.supervision.rule(group, layer, depth, step.progress) for layer in range(depth)]
        matchers = [rule.matcher for rule in rules]
        stands = _standing(prediction, rules, softmax=loss.normalised)
        request = MatchRequest(prediction, matchers, step.targets, classes=step.classes, stands=stands)
        return cls(group, suffixes, rules, request, loss, step.columns)

    @property
    def known(self) -> KnownMatches | None:
        """Its matches, where no matcher is asked."""
        return self.request.predictions.known

    def known_matches(self) -> Matches:
        """The known pairs, the same in every layer."""
        known, depth = self.known, len(self.suffixes)
        assert known is not None
        count = len(known.row)
        layer = torch.arange(depth, device=known.row.device).repeat_interleave(count)
        return Matches(layer, known.row.repeat(depth), known.target.repeat(depth), [count] * depth)

    def factors(self, name: str) -> list[tuple[float, float]]:
        """What a loss of each layer is multiplied by; and by how many times the number of targets it is divided.

        The second is 0 where it is not divided by that.
        """
        if not self.rules:
            return [(1.0, 0.0)] * len(self.suffixes)
        divided, of_classes = name == "loss_ce" and self.loss.normalised, name == "loss_ce"
        return [
            (rule.weight * (rule.class_factor if of_classes else 1.0), 0.0 if divided else rule.normaliser)
            for rule in self.rules
        ]


def _standing(predictions: Predictions, rules: Sequence[Rule], *, softmax: bool) -> Tensor | None:
    """Which queries of each layer learn, (L, B, n) bool; None where all do.

    Where several learn one target they crowd around it on purpose, and all of them stand.
    """
    threshold = predictions.distinct
    one_to_one = [rule.matcher.one_to_one for rule in rules]
    if threshold is None or not any(one_to_one):
        return None
    stands = standing_queries(predictions.logits, predictions.boxes, threshold, softmax=softmax)
    if all(one_to_one):
        return stands
    return torch.stack([x if alone else torch.ones_like(x) for x, alone in zip(stands, one_to_one, strict=True)])

"""What the criterion does for one group of queries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import Self

from hdetr_d2.layers import standing_queries
from hdetr_d2.matching.step import Matches, MatchRequest
from hdetr_d2.structures import BatchedTargets, KnownMatches, Predictions
from hdetr_d2.supervision import PRIMARY, Rule, Supervision

from .classification import ClassificationLoss
from .distribution import DISTILLED, EDGE_LOSSES


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
        group: its name; None for proposals, and for what a group predicts besides.
        suffixes: of the keys of each layer.
        rules: of each layer; none where matches are known.
        request: predictions and targets.
        loss: of its classes.
        columns: (C',) int64, the classes that its logits are of; None for all.
        queries: name of the group whose queries the predictions are of, one by one; None of proposals that are not.
    """

    group: str | None
    suffixes: list[str]
    rules: list[Rule]
    request: MatchRequest
    loss: ClassificationLoss
    columns: Tensor | None
    queries: str | None = None

    @classmethod
    def of_group(cls, group: str, prediction: Predictions, step: Step, loss: ClassificationLoss) -> Self:
        """That of a group of the decoder's queries."""
        depth = prediction.logits.shape[0]
        ending = "" if group == PRIMARY else f"_{group}"
        suffixes = [f"_{layer}{ending}" for layer in range(depth - 1)] + [ending]
        rules: list[Rule] = []
        if prediction.known is None:
            rules = [step.supervision.rule(group, layer, depth, step.progress) for layer in range(depth)]
        return cls._of_queries(group, prediction, step, loss, suffixes, rules)

    @classmethod
    def of_initial(cls, group: str, prediction: Predictions, step: Step, loss: ClassificationLoss) -> Self:
        """That of what a group's first layer predicts before it refines; its rule is the first layer's."""
        assert prediction.initial is not None
        rules: list[Rule] = []
        if prediction.known is None:
            first = step.supervision.rule(group, 0, prediction.logits.shape[0], step.progress)
            rules = [replace(first, fill_from=None)]
        suffix = "_pre" if group == PRIMARY else f"_pre_{group}"
        job = cls._of_queries(group, prediction.initial, step, loss, [suffix], rules)
        return replace(job, group=None)

    @classmethod
    def _of_queries(
        cls,
        group: str,
        prediction: Predictions,
        step: Step,
        loss: ClassificationLoss,
        suffixes: list[str],
        rules: list[Rule],
    ) -> Self:
        matchers = [rule.matcher for rule in rules]
        stands = _standing(prediction, rules, softmax=loss.normalised)
        request = MatchRequest(prediction, matchers, step.targets, classes=step.classes, stands=stands)
        return cls(group, suffixes, rules, request, loss, step.columns, group)

    def uniting(self) -> Self:
        """The same, whose matches are united with those of all layers of the same queries with the same matcher."""
        if not self.rules or self.queries is None:
            return self
        unions = [(self.queries, id(rule.matcher)) for rule in self.rules]
        return replace(self, request=replace(self.request, unions=unions))

    def endings(self, name: str) -> list[str]:
        """Suffixes of the layers that have the loss of this name."""
        if name not in EDGE_LOSSES:
            return self.suffixes
        if self.request.predictions.edges is None:
            return []
        return self.suffixes[:-1] if name == DISTILLED else self.suffixes

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
        of_classes = name == "loss_ce"
        divided = name == DISTILLED or (of_classes and self.loss.normalised)
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

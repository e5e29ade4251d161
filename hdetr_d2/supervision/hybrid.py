"""What the hybrid matching schemes have in common."""

from typing import Literal

from hdetr_d2.arguments import ArgumentError, check_choice, check_positive, check_whole, check_within
from hdetr_d2.matching import FrequencyDemand, MatchingCost, OneToManyMatcher

from .base import Supervision
from .rule import Rule

EncoderMatching = Literal["one2one", "one2many"]
"""How the encoder's proposals are matched."""


class HybridSupervision(Supervision):
    """A scheme with a one-to-many rule besides the one-to-one rule.

    Args:
        k: queries a target gets where matching is one-to-many.
        weight: of the one-to-many losses.
        normaliser: one-to-many losses are divided by this times the number of targets; None is k, the number of targets
            that the authors' code counts after repeating them.
        encoder: how the encoder's proposals are matched: ``"one2one"`` throughout, or ``"one2many"`` by the rule of the
            one-to-many part wherever the scheme has one.
        encoder_k: proposals a target gets with ``"one2many"``; None is k. Their losses are then divided by it.
        cost: the matching cost; None is Deformable DETR's.
        demand: gives each class a k of its own in one-to-many matching, of which ``k`` is the mean over objects, of
            proposals with ``encoder_k`` that; None gives all the same.
    """

    def __init__(
        self,
        *,
        k: int,
        weight: float = 1.0,
        normaliser: float | None = None,
        encoder: EncoderMatching = "one2one",
        encoder_k: int | None = None,
        cost: MatchingCost | None = None,
        demand: FrequencyDemand | None = None,
    ) -> None:
        super().__init__(cost=cost)
        check_whole(self, 1, k=k)
        check_within(self, 0.0, float("inf"), weight=weight)
        check_choice(self, EncoderMatching, encoder=encoder)
        if normaliser is not None:
            check_positive(self, normaliser=normaliser)
        self.encoder = encoder
        self.one_to_many = Rule(
            matcher=OneToManyMatcher(k=k, cost=cost, demand=demand),
            weight=weight,
            normaliser=k if normaliser is None else normaliser,
        )
        self.of_proposals = self.one_to_one if encoder == "one2one" else self.one_to_many
        if encoder_k is not None:
            check_whole(self, 1, encoder_k=encoder_k)
            if encoder == "one2one":
                raise ArgumentError(f'{type(self).__name__}: encoder_k={encoder_k} needs encoder="one2many"')
            matcher = OneToManyMatcher(k=encoder_k, cost=cost, demand=demand)
            self.of_proposals = Rule(matcher=matcher, weight=weight, normaliser=encoder_k)

    def encoder_rule(self, progress: float) -> Rule:
        """As the constructor was told."""
        del progress
        return self.of_proposals

"""What a supervision scheme amounts to, in numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isclose
from typing import Protocol

from tabulate import tabulate

from hdetr_d2.matching import CostMatcher, OneToManyMatcher

from .rule import PRIMARY, Rule

ENCODER = "encoder"
"""What stands for a group's name where the encoder's proposals are described."""


class Scheme(Protocol):
    """What is described: a ``Supervision``, or anything that gives rules as one does."""

    @property
    def changes_at(self) -> tuple[float, ...]:
        """Where in training the rules change."""

    def rule(self, group: str, layer: int, num_layers: int, progress: float) -> Rule:
        """The rule of a group in a decoder layer."""

    def encoder_rule(self, progress: float) -> Rule:
        """The rule of the encoder's proposals."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One rule and what it holds for.

    Args:
        start, stop: the part of training, of [0, 1].
        group: name of the group of queries, or ``ENCODER``.
        queries: how many there are; None for the encoder, whose proposals follow from the image.
        layers: decoder layers, 0 the first; none for the encoder.
        rule: as the scheme gave it.
        positives: queries that a target gets in each layer, on average over objects where classes differ; None where
            the matcher decides it by the predictions.
        by_class: the same of a target of each class, where classes differ and queries suffice; None where they do not.
    """

    start: float
    stop: float
    group: str
    queries: int | None
    layers: tuple[int, ...]
    rule: Rule
    positives: float | None
    by_class: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """A scheme on a model; ``str()`` is a table for people.

    Args:
        scheme: its name.
        num_layers: decoder layers.
        num_targets: objects of an image.
        shares: every rule, in the order of training, group and layer.
        unions: of a criterion that unites matches, what boxes of a group learn from together; one line each.
    """

    scheme: str
    num_layers: int
    num_targets: int
    shares: tuple[Share, ...]
    unions: tuple[str, ...] = ()

    def positives(self, *, group: str | None = None, layer: int | None = None) -> float | None:
        """Queries that a target gets, averaged over training.

        Args:
            group: of this group only, such as ``PRIMARY`` or ``ENCODER``; None is all groups of the decoder.
            layer: in this decoder layer only; None is the sum over all.

        Returns:
            None where a matcher decides it by the predictions.
        """
        total = 0.0
        for share in self.shares:
            if share.group != group and (group is not None or share.group == ENCODER):
                continue
            times = sum(layer in (None, each) for each in share.layers) if share.layers else 1
            if share.positives is None:
                return None
            total += (share.stop - share.start) * times * share.positives
        return total

    @property
    def budget(self) -> float | None:
        """Positives of the decoder, as a multiple of those of one-to-one matching; 7 for the paper's three schemes."""
        positives = self.positives()
        return None if positives is None else positives / self.num_layers

    def __str__(self) -> str:
        rows = [
            (
                f"{100 * share.start:.0f}-{100 * share.stop:.0f} %",
                share.group,
                "all proposals" if share.queries is None else share.queries,
                _numbers(share.layers),
                "varies" if share.positives is None else f"{share.positives:g}",
                "varies" if share.positives is None else f"{share.positives * self.num_targets:g}",
                _weight(share.rule),
                f"{share.rule.normaliser:g} x targets",
            )
            for share in self.shares
        ]
        headers = ("training", "group", "queries", "layers", "positives a target", "an image", "weight", "divided by")
        budget = "varies with the predictions" if self.budget is None else f"{self.budget:g} times one-to-one matching"
        title = f"{self.scheme}, {self.num_layers} decoder layers, {self.num_targets} targets an image: "
        of_encoder = self.positives(group=ENCODER)
        if of_encoder is not None and not isclose(of_encoder, 1.0):
            budget += f", of the encoder {of_encoder:g} times"
        tables = sorted({(share.group, share.by_class) for share in self.shares if share.by_class is not None})
        lines = [f"positives of a target by class, {group}: {_class_table(demands)}" for group, demands in tables]
        table = tabulate(rows, headers=headers, tablefmt="github")
        return f"{title}positives {budget}\n\n" + "\n\n".join([table, *lines, *self.unions])


def describe(
    scheme: Scheme, groups: Sequence[tuple[str, int]], *, num_layers: int, num_targets: int, united: bool = False
) -> Description:
    """Ask a scheme for all of its rules.

    Args:
        scheme: the scheme.
        groups: name and number of queries of each group.
        num_layers: decoder layers.
        num_targets: objects of an image.
        united: whether boxes learn from united matches (``SetCriterion.unite_matches``).
    """
    shares = []
    for start, stop in pairwise(sorted({0.0, *scheme.changes_at, 1.0})):
        for group, queries in groups:
            rules = [scheme.rule(group, layer, num_layers, start) for layer in range(num_layers)]
            for layers in _runs(rules):
                rule = rules[layers[0]]
                shares.append(
                    Share(
                        start=start,
                        stop=stop,
                        group=group,
                        queries=queries,
                        layers=layers,
                        rule=rule,
                        positives=_positives(rule, queries, num_targets),
                        by_class=_by_class(rule),
                    )
                )
        rule = scheme.encoder_rule(start)
        positives = _positives(rule, None, num_targets)
        shares.append(
            Share(
                start=start,
                stop=stop,
                group=ENCODER,
                queries=None,
                layers=(),
                rule=rule,
                positives=positives,
                by_class=_by_class(rule),
            )
        )
    unions = tuple(_unions(scheme, [group for group, _ in groups], num_layers)) if united else ()
    return Description(
        scheme=type(scheme).__name__,
        num_layers=num_layers,
        num_targets=num_targets,
        shares=tuple(shares),
        unions=unions,
    )


def _unions(scheme: Scheme, groups: Sequence[str], num_layers: int) -> Iterator[str]:
    """What boxes learn from together: layers of a group with one matcher, with the proposals where it is theirs too."""
    for start, stop in pairwise(sorted({0.0, *scheme.changes_at, 1.0})):
        of_proposals = scheme.encoder_rule(start).matcher
        for group in groups:
            layers: dict[int, tuple[int, ...]] = {}
            for layer in range(num_layers):
                key = id(scheme.rule(group, layer, num_layers, start).matcher)
                layers[key] = (*layers.get(key, ()), layer)
            for key, alike in layers.items():
                also = ", and of the proposals" if group == PRIMARY and key == id(of_proposals) else ""
                yield (
                    f"{100 * start:.0f}-{100 * stop:.0f} % of training, {group}: boxes learn from the union of the "
                    f"matches of layers {_numbers(alike)}{also}, and are divided by its size"
                )


def _positives(rule: Rule, queries: int | None, num_targets: int) -> float | None:
    """k, less where the queries are too few for all targets."""
    k = rule.matcher.copies if isinstance(rule.matcher, CostMatcher) else None
    if _by_class(rule) is not None:
        k = rule.matcher.k if isinstance(rule.matcher, CostMatcher) else None  # the mean over objects
    if k is None or queries is None:
        return k
    return min(float(k), queries / num_targets)


def _by_class(rule: Rule) -> tuple[int, ...] | None:
    """K of each class, where classes differ."""
    demands = rule.matcher.k_of_class if isinstance(rule.matcher, OneToManyMatcher) else None
    return None if demands is None else tuple(demands.tolist())


def _class_table(by_class: tuple[int, ...]) -> str:
    """How many classes get how many queries."""
    counts = Counter(by_class)
    return ", ".join(f"{k} ({counts[k]} class{'' if counts[k] == 1 else 'es'})" for k in sorted(counts, reverse=True))


def _weight(rule: Rule) -> str:
    """Of the losses, and of the class loss where that is another."""
    of_class = rule.weight * rule.class_factor
    return f"{rule.weight:g}" if of_class == rule.weight else f"{rule.weight:g} (class {of_class:g})"


def _runs(rules: Sequence[Rule]) -> list[tuple[int, ...]]:
    """Neighbouring layers with the same rule."""
    runs: list[tuple[int, ...]] = []
    for layer, rule in enumerate(rules):
        if layer and rules[layer - 1] == rule:
            runs[-1] += (layer,)
        else:
            runs.append((layer,))
    return runs


def _numbers(layers: tuple[int, ...]) -> str:
    """As people count."""
    if not layers:
        return "-"
    return str(layers[0] + 1) if len(layers) == 1 else f"{layers[0] + 1}-{layers[-1] + 1}"

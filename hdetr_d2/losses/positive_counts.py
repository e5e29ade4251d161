"""How often each class was learned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hdetr_d2.arguments import check_whole
from hdetr_d2.matching import Matcher
from hdetr_d2.transfer import to_device

KINDS = ("one_to_one", "one_to_many")


class PositiveCounter(nn.Module):
    """Counts the queries that learn to detect each class, in one-to-one and in one-to-many matching.

    On a long tail, one-to-many matching is a way to give rare classes more positive queries; this says how many. The
    counts of a process stay on its device and cost no synchronisation until they are taken.

    Args:
        num_classes: K.
    """

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        check_whole(self, 1, num_classes=num_classes)
        # No buffer: these are numbers of this process, not a state of the model.
        self._counts = torch.zeros(len(KINDS) * num_classes, dtype=torch.int64)
        self.num_classes = num_classes

    def add(self, matchers: Sequence[Matcher], layer: Tensor, label: Tensor) -> None:
        """Take in the matches of one group of queries.

        Args:
            matchers: of each of its L layers; those that give every target one query are one-to-one.
            layer: (P,) int64 in [0, L), of every match.
            label: (P,) int64 in [0, K), class of its target.
        """
        one = [matcher.one_to_one for matcher in matchers]
        kinds = torch.tensor([KINDS.index("one_to_one" if each else "one_to_many") for each in one])
        (kind,) = to_device([kinds], label.device)
        if self._counts.device != label.device:
            self._counts = self._counts.to(label.device)
        self._counts.index_add_(0, kind[layer] * self.num_classes + label, torch.ones_like(label))

    def take(self) -> Tensor:
        """(2, K) int64 on the CPU, in the order of KINDS: what was counted since this was called last."""
        counts = self._counts.cpu().clone().reshape(len(KINDS), self.num_classes)
        self._counts.zero_()
        return counts

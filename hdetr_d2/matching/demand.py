"""How many queries a target gets by how rare its class is."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hdetr_d2.arguments import ArgumentError, check_whole, check_within


class FrequencyDemand:
    """k of a target in proportion to (images that show its class) ** -power, with the budget of a constant k.

    The mean over all objects, of which each class is counted as many as images show it, stays k as nearly as whole
    numbers allow: common classes give what rare ones get.

    Args:
        image_counts: (K,) training images that show each class; one that none shows counts as shown by one.
        power: p; 0 is the same k for all.
        least, most: of k of any class; None is no upper limit but ten times the mean.
    """

    def __init__(
        self, *, image_counts: Sequence[int], power: float = 0.5, least: int = 1, most: int | None = None
    ) -> None:
        check_within(self, 0.0, math.inf, power=power)
        check_whole(self, 1, least=least)
        if most is not None:
            check_whole(self, least, most=most)
        if not len(image_counts) or any(count < 0 for count in image_counts):
            raise ArgumentError("FrequencyDemand: image_counts must be one number of images for each class")
        self.image_counts = tuple(int(count) for count in image_counts)
        self.power, self.least, self.most = power, least, most

    def of_classes(self, k: int) -> Tensor:
        """(K,) int64, k of each class where the mean is to be ``k``.

        Raises:
            ArgumentError: ``least`` and ``most`` leave no way to that mean.
        """
        most = 10 * k if self.most is None else self.most
        if not self.least <= k <= most:
            raise ArgumentError(f"FrequencyDemand: k={k} is not between least={self.least} and most={most}")
        # Numbers of the constructor, also where a model is built without memory (torch.device("meta")).
        counts = torch.tensor(self.image_counts, dtype=torch.float64, device="cpu").clamp(min=1)
        share = counts**-self.power

        def demands(scale: float) -> Tensor:
            return (scale * share).round().clamp(self.least, most)

        def mean(scale: float) -> float:
            return float((demands(scale) * counts).sum() / counts.sum())

        low, high = 0.0, float(most / share.min()) + 1.0
        for _ in range(100):  # the mean rises with the scale, in steps
            middle = (low + high) / 2
            low, high = (middle, high) if mean(middle) < k else (low, middle)
        best = min((low, high), key=lambda scale: abs(mean(scale) - k))
        return demands(best).long()

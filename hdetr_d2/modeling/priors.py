"""With which scores a class head starts."""

import math
from collections.abc import Sequence

import torch
from torch import nn


def frequency_prior(
    *, image_counts: Sequence[int] | None, mean: float = 0.01, power: float = 0.5, least: float = 1e-4
) -> list[float] | float:
    """Probabilities to start class heads with, so that rare classes need not first be learned to be rare.

    They are proportional to ``image_counts ** power``. Nothing of the kind is published for these models, which start
    every class at 0.01; the root keeps rare classes from starting so low that they never rise.

    Args:
        image_counts: (K,) training images that show each class; None, where they are not known because nothing will be
            trained, gives ``mean`` alone.
        mean: of all classes, before the limits.
        power: 0 starts them alike.
        least: no class starts below this, and none above 0.5.
    """
    if image_counts is None:
        return mean
    weights = [float(count) ** power for count in image_counts]
    scale = mean * len(weights) / max(sum(weights), 1e-12)
    return [min(max(weight * scale, least), 0.5) for weight in weights]


def start_at(head: nn.Linear, prior: float | Sequence[float]) -> None:
    """Set the bias of a class head with sigmoid scores, so that it starts with these probabilities.

    Args:
        head: K outputs.
        prior: one for all classes, or K.

    Raises:
        ValueError: another number of them, or one that is not between 0 and 1.
    """
    values = [prior] * head.out_features if isinstance(prior, (int, float)) else list(prior)
    if len(values) != head.out_features:
        raise ValueError(f"the prior has {len(values)} entries, the class head {head.out_features} classes")
    if not all(0.0 < value < 1.0 for value in values):
        raise ValueError(f"a prior must be between 0 and 1, got {min(values)} to {max(values)}")
    with torch.no_grad():
        head.bias.copy_(torch.tensor([-math.log((1 - value) / value) for value in values]))


def mean_prior(prior: float | Sequence[float]) -> float:
    """Of all classes; for a head that tells objects from background."""
    return float(prior) if isinstance(prior, (int, float)) else sum(prior) / len(prior)

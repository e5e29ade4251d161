"""Which target a query has that was given several, as D-FINE unites the matches of its layers."""

import torch
from torch import Tensor


def most_frequent(row: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Give every query one target.

    Args:
        row: (P,) int64, the queries of pairs.
        target: (P,) int64, the target of each.

    Returns:
        The queries (Q,) int64, each once and ascending, and the target (Q,) int64 that each occurs with most often; of
        several the first.
    """
    size = int(target.max()) + 1 if len(target) else 1
    pair, count = (row * size + target).unique(return_counts=True)
    pair = pair[count.argsort(descending=True, stable=True)]
    pair = pair[(pair // size).argsort(stable=True)]
    rows = pair // size
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    return rows[first], pair[first] % size

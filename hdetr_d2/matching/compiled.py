"""Whether the compiled operators of matching are there."""

from functools import cache

import torch

import hdetr_d2.ops  # noqa: F401  (loads the library that holds them)


@cache
def is_compiled() -> bool:
    """True where they were built; scipy and plain PyTorch, several times slower, take their place where not."""
    operators = torch.ops.hdetr_d2
    return all(hasattr(operators, name) for name in ("solve_one_to_many", "solve_candidates", "pair_costs"))

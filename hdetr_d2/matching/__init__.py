"""Which query learns from which target."""

from .base import CostMatcher, Matcher, StagedMatcher
from .cost import MatchingCost
from .demand import FrequencyDemand
from .hungarian import HungarianMatcher
from .lexicographic import LexicographicMatcher
from .one_to_many import OneToManyMatcher
from .solver import solve_one_to_many, solve_transportation
from .top_k import TopKMatcher

__all__ = [
    "CostMatcher",
    "FrequencyDemand",
    "HungarianMatcher",
    "LexicographicMatcher",
    "Matcher",
    "MatchingCost",
    "OneToManyMatcher",
    "StagedMatcher",
    "TopKMatcher",
    "solve_one_to_many",
    "solve_transportation",
]

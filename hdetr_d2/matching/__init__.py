"""Which query learns from which target."""

from .base import CostMatcher, Matcher
from .cost import MatchingCost
from .hungarian import HungarianMatcher
from .one_to_many import OneToManyMatcher
from .solver import solve_one_to_many

__all__ = ["CostMatcher", "HungarianMatcher", "Matcher", "MatchingCost", "OneToManyMatcher", "solve_one_to_many"]

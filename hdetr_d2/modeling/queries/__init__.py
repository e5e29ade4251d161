"""Query sources."""

from .base import QuerySource
from .learned import AnchorQueries, LearnedQueries
from .two_stage import TwoStageQueries

__all__ = ["AnchorQueries", "LearnedQueries", "QuerySource", "TwoStageQueries"]

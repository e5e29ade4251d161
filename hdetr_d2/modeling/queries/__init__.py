"""Query sources."""

from .base import QuerySource
from .learned import LearnedQueries
from .two_stage import TwoStageQueries

__all__ = ["LearnedQueries", "QuerySource", "TwoStageQueries"]

"""Looking at a dataset before training with it: what is in it, and what will hurt."""

from .findings import Finding, Severity
from .inspect import Inspection, inspect_dataset
from .report import as_json, as_text

__all__ = ["Finding", "Inspection", "Severity", "as_json", "as_text", "inspect_dataset"]

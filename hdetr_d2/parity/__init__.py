"""Comparison with files from the authors' code."""

from .check import Check
from .cli import check_file, main
from .errors import NotSupportedError, ParityError

__all__ = ["Check", "NotSupportedError", "ParityError", "check_file", "main"]

"""What commands that answer a question print."""

from __future__ import annotations

import logging
import sys


def plain_logging() -> None:
    """Messages as they are, on standard output."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)

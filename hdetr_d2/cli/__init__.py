"""The program ``hdetr-d2``. Importing it imports nothing heavy; each command does when it runs."""

from .app import run

__all__ = ["run"]

"""What is wrong with how an evaluation is asked for."""

from __future__ import annotations

from hdetr_d2.errors import UserError

__all__ = ["EvaluationError", "MissingBackendError", "ReportError"]


class EvaluationError(UserError, ValueError):
    """An option of an evaluation is wrong; the message names it, and what there is."""


class MissingBackendError(UserError, ImportError):
    """A program that compares detections is not installed, or does not work here."""


class ReportError(UserError, ValueError):
    """A report on runs cannot be made; the message says which file is missing or does not fit."""

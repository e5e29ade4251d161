"""Weights from and to other projects, as ``hdetr-d2 convert`` does it."""

from .request import Conversion, ConversionError
from .run import Outcome, convert

__all__ = ["Conversion", "ConversionError", "Outcome", "convert"]

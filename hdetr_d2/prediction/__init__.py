"""Detecting in what people have: images, folders, lists, videos, cameras; writing what they want of it."""

from .inputs import Frame, Inputs, InputsError, open_inputs
from .run import Summary, predict
from .writers import SAVABLE, make_writers

__all__ = ["SAVABLE", "Frame", "Inputs", "InputsError", "Summary", "make_writers", "open_inputs", "predict"]

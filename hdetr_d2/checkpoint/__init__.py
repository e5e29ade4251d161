"""Checkpoint files: safe reading, atomic writing, and conversion between projects."""

from .loading import CheckpointError, LoadReport, SafeCheckpointer, load_checkpoint, write_atomically

__all__ = ["CheckpointError", "LoadReport", "SafeCheckpointer", "load_checkpoint", "write_atomically"]

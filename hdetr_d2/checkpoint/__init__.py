"""Checkpoint files: safe reading, atomic writing, and conversion between projects."""

from hdetr_d2.output import write_atomically

from .loading import LoadReport, SafeCheckpointer
from .reading import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    NoWeightsError,
    find_damage,
    load_checkpoint,
    remedy_beside,
    tagged,
)

__all__ = [
    "CheckpointError",
    "DamagedCheckpointError",
    "LoadReport",
    "MissingCheckpointError",
    "NoWeightsError",
    "SafeCheckpointer",
    "find_damage",
    "load_checkpoint",
    "remedy_beside",
    "tagged",
    "write_atomically",
]

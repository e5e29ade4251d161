"""A described checkpoint as ``.safetensors`` with its description in a ``.json`` of the same name, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from hdetr_d2.checkpoint.class_heads import RECORD, Scoring
from hdetr_d2.description import KEY, write_description
from hdetr_d2.errors import UserError
from hdetr_d2.output import SAFETENSORS_SUFFIX, save_weights

from .sources import Source, open_source


class TwinError(UserError, ValueError):
    """A file that has no twin; the message names it."""


def write_twin(path: str | os.PathLike[str], target: str | os.PathLike[str] | None = None) -> Path:
    """Write the other one of the two kinds of files that a model's weights and description are kept in.

    Both hold the weights that detect: those of a moving average, where that is the result of a run.

    Args:
        path: a ``.pth`` of a run, or a ``.safetensors`` with its ``.json`` beside it.
        target: the file to write; None is beside ``path``, with the other ending.

    Returns:
        The file that was written; for a ``.safetensors`` the ``.json`` beside it was, too.

    Raises:
        TwinError: the target has the ending of neither, or is ``path`` itself.
        UserError: the file cannot be read or lacks what a detector needs.
    """
    source = Path(path)
    ending = ".pth" if source.suffix == SAFETENSORS_SUFFIX else SAFETENSORS_SUFFIX
    written = source.with_suffix(ending) if target is None else Path(target)
    if written.suffix not in (".pth", SAFETENSORS_SUFFIX):
        raise TwinError(f"{written}: weights are written as .pth or .safetensors")
    if source.is_dir() or written == source:
        raise TwinError(f"{source}: name a file of weights, and another one to write")
    opened = open_source(source)
    if written.suffix == SAFETENSORS_SUFFIX:
        write_description(written.with_suffix(".json"), opened.description)
    save_weights(written, described(opened))
    return written


def described(opened: Source) -> dict[str, Any]:
    """What a checkpoint of a model holds: weights, how its heads are read, and its description."""
    scoring = Scoring.of_config(opened.cfg.model).record()
    return {"model": _weights(opened), RECORD: scoring, KEY: opened.description.to_dict()}


def _weights(opened: Source) -> dict[str, Tensor]:
    return {**opened.state, **opened.average}

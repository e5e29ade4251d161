"""What is converted: the weights in a file, and what the file says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from hdetr_d2.checkpoint.class_heads import FIRST_HEAD
from hdetr_d2.checkpoint.convert import OURS, read_state, recognised
from hdetr_d2.description import KEY
from hdetr_d2.detector import ModelDescription, Source, SourceError, open_source
from hdetr_d2.detector.hub import is_folder_of_transformers
from hdetr_d2.detector.sources import ZOO, checkpoint_file, weights_of_run
from hdetr_d2.weights.hub import HUB

from .request import Conversion, ConversionError


@dataclass(frozen=True, kw_only=True)
class Described:
    """What is known of a model of ours beside its weights."""

    cfg: DictConfig
    description: ModelDescription


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source that was read.

    Args:
        path: of the file.
        origin: whose names it has.
        checkpoint: the whole file.
        state: the weights in it; of ours the moving average, where that is the result of the run.
        described: of a model of ours, where the file or the config beside it says it.
    """

    path: Path
    origin: str
    checkpoint: Mapping[str, Any]
    state: dict[str, Tensor]
    described: Described | None = None


def open_for(request: Conversion) -> Opened:
    """Read the source of a conversion.

    Raises:
        ConversionError: it is not known whose names it has, or there is no such file.
        CheckpointError: it cannot be read.
    """
    path = checkpoint_file(request.source, download=request.download)
    if path.is_dir() and is_folder_of_transformers(path) and request.origin in (None, "transformers"):
        return _opened(path, open_source(path))
    if path.is_dir() and request.origin in (None, OURS):
        path = weights_of_run(path)
    checkpoint, state = read_state(path)
    converted = request.source.startswith((ZOO, HUB))
    origin = OURS if converted else request.origin or origin_of(path, state)
    if origin == OURS and _may_be_described(path, checkpoint):
        try:
            return _opened(path, open_source(path))
        except SourceError:  # a config beside it that does not say enough: the weights alone are converted
            pass
    return Opened(path=path, origin=origin, checkpoint=checkpoint, state=state)


def _may_be_described(path: Path, checkpoint: Mapping[str, Any]) -> bool:
    beside = path.with_suffix(".json") if path.suffix == ".safetensors" else path.parent / "config.yaml"
    return KEY in checkpoint or beside.is_file()


def _opened(path: Path, source: Source) -> Opened:
    return Opened(
        path=path,
        origin=OURS,
        checkpoint={},
        state={**source.state, **source.average},
        described=Described(cfg=source.cfg, description=source.description),
    )


def origin_of(path: Path, state: Mapping[str, Tensor]) -> str:
    """Whose names a state dict has.

    Raises:
        ConversionError: nobody's that is known.
    """
    if FIRST_HEAD in state:
        return OURS
    origin = recognised(state)
    if origin is None:
        raise ConversionError(
            f"{path}: it is not known whose names its tensors have, such as {', '.join(sorted(state)[:3])}; name the "
            "project with --from"
        )
    return origin

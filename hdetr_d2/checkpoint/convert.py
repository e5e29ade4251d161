"""From a checkpoint of any known project to ours and back, by the project's name."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .authors import AuthorsLayout, from_authors, to_authors
from .backbones import (
    Renamed,
    backbone_from_detectron2,
    backbone_from_swin,
    backbone_from_torchvision,
    backbone_to_detectron2,
    backbone_to_swin,
    backbone_to_torchvision,
)
from .detrex import from_detrex, to_detrex
from .family_files import FAMILY, family_model_of, from_family, is_family, to_family
from .hdetr_lvis import from_hdetr_lvis, to_hdetr_lvis
from .loading import load_checkpoint
from .rtdetr import from_rtdetr, is_rtdetr, to_rtdetr
from .rtdetr_transformers import from_rtdetr_transformers, is_rtdetr_of_transformers, to_rtdetr_transformers
from .transformers import from_transformers, to_transformers

OURS = "hdetr_d2"
_FROM_MODEL: Mapping[str, Callable[..., dict[str, Tensor]]] = {
    "hdetr": from_authors,
    "hdetr_lvis": from_hdetr_lvis,
    "deformable_detr": from_authors,
    "detrex": from_detrex,
    "rtdetr": from_rtdetr,
    "transformers": from_transformers,
}
_TO_MODEL: Mapping[str, Callable[..., dict[str, Tensor]]] = {
    "hdetr": to_authors,
    "hdetr_lvis": to_hdetr_lvis,
    "deformable_detr": to_authors,
    "detrex": to_detrex,
    "transformers": to_transformers,
}
_TO_RTDETR: Mapping[str, Callable[..., dict[str, Tensor]]] = {
    "rtdetr": to_rtdetr,
    "transformers": to_rtdetr_transformers,
}
_FROM_BACKBONE: Mapping[str, Callable[[Mapping[str, Tensor]], Renamed]] = {
    "torchvision": backbone_from_torchvision,
    "timm": backbone_from_torchvision,  # the same network under the same names
    "swin": backbone_from_swin,
}
_TO_BACKBONE: Mapping[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "torchvision": backbone_to_torchvision,
    "timm": backbone_to_torchvision,
    "swin": backbone_to_swin,
}

MODELS = tuple(_FROM_MODEL)
BACKBONES = ("torchvision", "timm", "detectron2", "swin")
PROJECTS = (*MODELS, *FAMILY, *BACKBONES)
"""All that there is a converter for; of FAMILY and of MODELS each has the names of other models."""


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint file and the state dict in it, bare or under "model", "state_dict", or RT-DETR's "ema" and "module".

    Raises:
        FileNotFoundError, CheckpointError: as `load_checkpoint`.
        ValueError: what is there is no state dict of named, dense tensors.
    """
    checkpoint = load_checkpoint(path)
    average = checkpoint.get("ema")
    if isinstance(average, Mapping) and "module" in average:
        found = average["module"]  # what the authors of RT-DETR and DEIM evaluate, if it is there
    else:
        found = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"holds no state dict but {type(found).__name__} of length {_length(found)}")
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        tensor = _tensor(value) if isinstance(value, np.ndarray) else value
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise ValueError(f"{key!r} is a {type(value).__name__}; a state dict has names and dense tensors")
        state[key] = tensor
    return checkpoint, state


def to_ours(
    origin: str,
    checkpoint: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    num_queries: int = 300,
    classes: Sequence[int] | None = None,
) -> Renamed:
    """Our names for a state dict.

    Args:
        origin: whose names it has: ours, or one of `PROJECTS`.
        checkpoint: the whole file.
        state: the state dict in it.
        num_queries: as of ``from_authors``.
        classes: as of ``from_authors``; of models other than ours.

    Raises:
        ValueError: the state dict is not what ``origin`` says, or is inconsistent.
    """
    if origin == OURS:
        AuthorsLayout.of_ours(state)
        return Renamed(dict(state), ())
    if origin == "detectron2":
        return backbone_from_detectron2(checkpoint, state)
    if origin in _FROM_BACKBONE:
        return _FROM_BACKBONE[origin](state)
    try:
        if is_family(origin, state):
            return Renamed(from_family(origin, state, classes=classes), ())
        convert = _FROM_MODEL[origin]
        if origin == "transformers" and is_rtdetr_of_transformers(state):
            convert = from_rtdetr_transformers
        return Renamed(convert(state, num_queries=num_queries, classes=classes), ())
    except (TypeError, IndexError, RuntimeError) as error:
        # Names that are right over shapes that are not: a damaged or forged file.
        raise ValueError(f"the tensors do not have the shapes of {origin}'s model ({error})") from error


def from_ours(target: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The content of a file for another project.

    Args:
        target: one of `PROJECTS`, or ours.
        state: our names.

    Returns:
        What to save: a bare state dict for transformers, torchvision and timm, else one under "model".

    Raises:
        ValueError: the state dict has something that the project has no place for.
    """
    if target == "detectron2":
        return backbone_to_detectron2(state)
    if target in _TO_BACKBONE:
        converted = _TO_BACKBONE[target](state)
    elif target == OURS:
        converted = dict(state)
    elif is_rtdetr(state):
        if target not in _TO_RTDETR:
            raise ValueError(
                f"the model is an RT-DETR, for which {target} has no names; there are {sorted(_TO_RTDETR)}"
            )
        converted = _TO_RTDETR[target](state)
    elif target in FAMILY or (family_model_of(state) is not None and target in ("detrex", "transformers")):
        converted = to_family(target, state)
    elif target not in _TO_MODEL:
        raise ValueError(f"the model is no RT-DETR, so that {target} has no names for it")
    else:
        converted = _TO_MODEL[target](state, layout=AuthorsLayout.of_ours(state))
    if target in ("transformers", "torchvision", "timm"):
        return _compact(converted)
    return {"model": _compact(converted)}


def _compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows chosen from a table without the rest of the table behind them."""
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def _tensor(array: np.ndarray[Any, Any]) -> Tensor | None:
    """A copy in this machine's byte order; None where there is no such tensor."""
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        return None
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1

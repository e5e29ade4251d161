"""From a checkpoint of any known project to ours and back, by the project's name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .class_heads import FIRST_HEAD, RECORD, ClassHeads, Scoring
from .names import deformable_detr, detr, dfine, dino, mmdet, relation_detr, rtdetr
from .names.backbones import (
    Renamed,
    backbone_from_detectron2,
    backbone_from_swin,
    backbone_from_torchvision,
    backbone_to_detectron2,
    backbone_to_swin,
    backbone_to_torchvision,
)
from .reading import CheckpointError, load_checkpoint, state_in
from .renaming import Code, State

OURS = "hdetr_d2"
_FAMILY: Mapping[str, Code] = {**detr.AUTHORS, **dino.AUTHORS, **relation_detr.CODES}
_DEFORMABLE: Mapping[str, Code] = deformable_detr.CODES

# Of projects with several models the state dict tells which it is of, theirs or ours; others are Deformable DETR.
_SEVERAL: Mapping[str, Mapping[str, Code]] = {
    "detrex": {**detr.DETREX, **dino.DETREX},
    "transformers": detr.TRANSFORMERS,
}

MODELS = (*_DEFORMABLE, "mmdet", "rtdetr", "dfine")
FAMILY = tuple(_FAMILY)
"""The authors' projects of which each has one model."""
BACKBONES = ("torchvision", "timm", "detectron2", "swin")
PROJECTS = (*MODELS, *FAMILY, *BACKBONES)
"""All that there is a converter for; of FAMILY and of MODELS each has the names of other models."""

_FROM_BACKBONE: Mapping[str, Callable[[State], Renamed]] = {
    "torchvision": backbone_from_torchvision,
    "timm": backbone_from_torchvision,  # the same network under the same names
    "swin": backbone_from_swin,
}
_TO_BACKBONE: Mapping[str, Callable[[State], dict[str, Tensor]]] = {
    "torchvision": backbone_to_torchvision,
    "timm": backbone_to_torchvision,
    "swin": backbone_to_swin,
}


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint file and the state dict in it (`state_in`).

    Raises:
        MissingCheckpointError, CheckpointError: as `load_checkpoint`, or what is there is no state dict of named, dense
            tensors.
    """
    checkpoint = load_checkpoint(path)
    return checkpoint, state_in(checkpoint, path)


def to_ours(
    origin: str,
    checkpoint: Mapping[str, Any],
    state: State,
    *,
    num_queries: int = 300,
    classes: Sequence[int] | None = None,
) -> Renamed:
    """Our names for a state dict.

    Args:
        origin: whose names it has: ours, or one of `PROJECTS`.
        checkpoint: the whole file.
        state: the state dict in it.
        num_queries: of the one-to-one group; further rows of a query table are the one-to-many group's.
        classes: for each of our classes the row of their class heads, such as COCO's category ids for its 80
            contiguous classes; None keeps all rows. Of models other than ours. An objectness in the encoder's heads
            stays first, "no object" and further rows of a label table stay last.

    Raises:
        ValueError: the state dict is not what ``origin`` says, or is inconsistent.
    """
    if origin == OURS:
        deformable_detr.AuthorsLayout.of_ours(state)
        return Renamed(dict(state), ())
    if origin == "detectron2":
        return backbone_from_detectron2(checkpoint, state)
    if origin in _FROM_BACKBONE:
        return _FROM_BACKBONE[origin](state)
    try:
        code = _code_of_theirs(origin, state)
        renamed = code.to_ours(state, num_queries=num_queries)
        if FIRST_HEAD not in renamed:
            raise ValueError(f"there is no class head of {origin}'s model among the keys, such as {sorted(state)[:5]}")
        if classes is None:
            return Renamed(renamed, ())
        heads = ClassHeads.of(renamed, code.scoring or Scoring.of_names(renamed))
        return Renamed(heads.select(renamed, [int(row) for row in classes]), ())
    except (TypeError, IndexError, RuntimeError) as error:
        # Names that are right over shapes that are not: a damaged or forged file.
        raise ValueError(f"the tensors do not have the shapes of {origin}'s model ({error})") from error


def scoring_of(origin: str, checkpoint: Mapping[str, Any], state: State) -> Scoring | None:
    """How the model of a checkpoint reads its class heads, where the file or its project says it.

    Args:
        origin: whose names the state dict in the file has.
        checkpoint: the whole file.
        state: the state dict in it, with the names of ``origin``.
    """
    if origin == OURS:
        return Scoring.of_checkpoint(checkpoint)
    return None if origin in BACKBONES else _code_of_theirs(origin, state).scoring


def from_ours(target: str, state: State, *, scoring: Scoring | None = None) -> dict[str, Any]:
    """The content of a file for another project.

    Args:
        target: one of `PROJECTS`, or ours.
        state: our names. What losses have counted ("criterion.") is of our training alone, and left out for others.
        scoring: how its model reads its class heads, where it is known; a file of ours carries it.

    Returns:
        What to save: a bare state dict for transformers, torchvision and timm, else one under "model".

    Raises:
        ValueError: the state dict has something that the project has no place for.
    """
    if target == OURS:
        return {"model": _compact(state), **({RECORD: scoring.record()} if scoring else {})}
    state = {key: value for key, value in state.items() if not key.startswith("criterion.")}
    if target == "detectron2":
        return backbone_to_detectron2(state)
    if target in _TO_BACKBONE:
        return _written(target, _TO_BACKBONE[target](state))
    return _written(target, _code_of_ours(target, state).to_theirs(state))


def recognised(state: State) -> str | None:
    """Whose names a state dict has, as `to_ours` takes it: the first project that knows all of them; None for none."""
    for origin in PROJECTS:
        try:
            renamed = to_ours(origin, {}, state).state
        except (ValueError, CheckpointError):
            continue
        if not renamed.keys() <= state.keys():
            return origin
    return None


def _code_of_theirs(origin: str, state: State) -> Code:
    """The model that a state dict with a project's names is of."""
    if origin in _FAMILY:
        return _FAMILY[origin]
    if origin == "mmdet":
        return replace(mmdet.CODE, scoring=mmdet.scoring_of(state))
    if origin == "rtdetr":
        return rtdetr.CODES["rtdetr"]
    if origin == "dfine":
        return dfine.CODES["dfine"]
    if origin == "transformers" and rtdetr.is_rtdetr_of_transformers(state):
        return (dfine if dfine.is_dfine_of_transformers(state) else rtdetr).CODES["transformers"]
    model = None
    if origin == "detrex":
        model = detr.model_of_detrex(state) or dino.model_of_detrex(state)
    elif origin == "transformers":
        model = detr.model_of_transformers(state)
    return _DEFORMABLE[origin] if model is None else _SEVERAL[origin][model]


def _code_of_ours(target: str, state: State) -> Code:
    """The model of a project that a state dict with our names becomes.

    Raises:
        ValueError: the project has no such model.
    """
    if rtdetr.is_rtdetr(state):
        name, codes = ("a D-FINE", dfine.CODES) if dfine.is_dfine(state) else ("an RT-DETR", rtdetr.CODES)
        if target not in codes:
            raise ValueError(f"the model is {name}, for which {target} has no names; there are {sorted(codes)}")
        return codes[target]
    if relation_detr.is_relation_detr(state):
        if target not in relation_detr.CODES:
            raise ValueError(f"the model is a Relation-DETR, for which {target} has no names")
        return relation_detr.CODES[target]
    others = {"rtdetr": "RT-DETR", "dfine": "D-FINE", "relation_detr": "Relation-DETR"}
    if target in others:
        raise ValueError(f"the model is no {others[target]}, so that {target} has no names for it")
    if target in _FAMILY:
        return _FAMILY[target]
    if target == "mmdet":
        return mmdet.CODE
    model = detr.model_of_ours(state) or dino.model_of_ours(state)
    if model is None or target not in _SEVERAL:
        return _DEFORMABLE[target]
    if model not in _SEVERAL[target]:
        raise ValueError(f"{target} has no such model; it has {', '.join(_SEVERAL[target])}")
    return _SEVERAL[target][model]


def _written(target: str, state: State) -> dict[str, Any]:
    if target in ("transformers", "torchvision", "timm"):
        return _compact(state)
    return {"model": _compact(state)}


def _compact(state: State) -> dict[str, Tensor]:
    """Rows chosen from a table without the rest of the table behind them."""
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}

"""Rows of class heads and label tables: COCO's 80 classes out of the authors' 91 category ids."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_HEAD = re.compile(r"transformer\.heads\.class_embed\.\d+\.(weight|bias)")
_ENCODER_HEAD = re.compile(r"transformer\.heads\.(encoder_class_embed|group_class_embed\.\w+)\.(weight|bias)")
_LABELS = "transformer.denoising.label_embed.weight"


def choose_classes(
    state: Mapping[str, Tensor],
    classes: Sequence[int] | Tensor,
    *,
    binary_encoder: bool = True,
    no_object: bool = False,
) -> dict[str, Tensor]:
    """Keep the rows of some classes.

    Args:
        state: our names.
        classes: for each class of ours the row of theirs.
        binary_encoder: whether row 0 of the encoder's heads is an objectness, which stays first, and no class.
        no_object: whether the last row of the class heads is "no object", which stays last (DETR).

    Returns:
        A new state dict. What a label table has after the rows of the classes, that of an unknown class or of an empty
        slot, stays there.

    Raises:
        ValueError: a head has too few rows.
    """
    rows = torch.as_tensor(classes)
    width = len(state["transformer.heads.class_embed.0.weight"]) - no_object
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= width:
        raise ValueError(
            f"the class heads have {width} rows, too few for the rows asked for (up to {int(rows.max())})"
            if len(rows)
            else "no rows of the class heads are asked for"
        )
    encoder_rows = rows.clone()
    if binary_encoder:
        encoder_rows[0] = 0
    chosen = dict(state)
    for key, value in state.items():
        if _HEAD.fullmatch(key) or key == _LABELS:
            chosen[key] = torch.cat([value[rows], value[width:]]) if len(value) > width else value[rows]
        elif _ENCODER_HEAD.fullmatch(key):
            chosen[key] = value[encoder_rows]
    return chosen


def widen_classes(
    state: Mapping[str, Tensor], classes: Sequence[int], width: int, *, binary_encoder: bool = True
) -> dict[str, Tensor]:
    """The inverse of ``choose_classes``: heads with a row for every category id of the other project.

    Args:
        state: our names.
        classes: for each class of ours the row of theirs, such as COCO's category ids.
        width: rows of their heads; 91 for COCO.
        binary_encoder: whether row 0 of the encoder's heads is an objectness, which stays first, and no class.

    Returns:
        A new state dict. Rows that no class has are zero with a bias of -12, a score of 6e-6 whatever the query.

    Raises:
        ValueError: the heads have another number of classes, or a row is outside of ``width``.
    """
    rows = torch.as_tensor(classes)
    if len(rows) != len(state["transformer.heads.class_embed.0.weight"]) or rows.min() < 0 or rows.max() >= width:
        raise ValueError(
            f"{len(rows)} rows of {width} are given for the "
            f"{len(state['transformer.heads.class_embed.0.weight'])} classes of the class heads"
        )
    encoder_rows = rows.clone()
    if binary_encoder:
        encoder_rows[0] = 0
    widened = dict(state)
    for key, value in state.items():
        is_head, is_encoder = bool(_HEAD.fullmatch(key)), bool(_ENCODER_HEAD.fullmatch(key))
        if is_head or (is_encoder and len(value) == len(rows)):
            widened[key] = value.new_full((width, *value.shape[1:]), -12.0 if key.endswith(".bias") else 0.0)
            widened[key][rows if is_head else encoder_rows] = value
    return widened

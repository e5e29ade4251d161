"""Checkpoints of the family by the project's name: the authors' code, detrex and transformers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from . import detrex_family, family, transformers_family
from .class_rows import choose_classes
from .family import Names, count_decoder_layers

State = Mapping[str, Tensor]
_LEVEL = re.compile(r"neck\.(levels\.\d+\.0|convs\.\d+\.conv)\.weight")


class _Origin(NamedTuple):
    """Whose names a file has.

    Args:
        names: from a state dict, of whichever side, to the names of that model.
        binary_encoder, no_object: as ``choose_classes`` has them.
    """

    names: Callable[[State], Names]
    binary_encoder: bool = True
    no_object: bool = False


def _fixed(make: Callable[[], Names]) -> Callable[[State], Names]:
    """Names that do not depend on the state dict."""

    def names(state: State) -> Names:
        del state
        return make()

    return names


def _by_depth(make: Callable[[int], Names]) -> Callable[[State], Names]:
    """Names that depend on the number of decoder layers."""

    def names(state: State) -> Names:
        return make(count_decoder_layers(state))

    return names


def _by_depth_and_levels(make: Callable[[int, int], Names]) -> Callable[[State], Names]:
    """Names that depend on how many feature levels come from the backbone, too."""

    def names(state: State) -> Names:
        levels = (key for key, value in state.items() if value.ndim == 4 and value.shape[-1] == 1)
        convs = sum(bool(_LEVEL.fullmatch(key)) for key in levels)
        return make(count_decoder_layers(state), convs)

    return names


_AUTHORS: Mapping[str, _Origin] = {
    "detr": _Origin(_fixed(family.detr_names), no_object=True),
    "conditional_detr": _Origin(_fixed(family.conditional_detr_names)),
    "dab_detr": _Origin(_fixed(family.dab_detr_names)),
    "dn_detr": _Origin(_fixed(family.dab_detr_names)),
    "dab_deformable_detr": _Origin(_fixed(family.dab_deformable_detr_names)),
    "dn_deformable_detr": _Origin(_fixed(family.dab_deformable_detr_names)),
    "dino": _Origin(_by_depth(family.dino_names), binary_encoder=False),
    "ms_detr": _Origin(_by_depth(family.ms_detr_names)),
    "mr_detr": _Origin(_by_depth_and_levels(family.mr_detr_names)),
}
FAMILY = tuple(_AUTHORS)
"""The authors' projects."""

# Of other projects the state dict tells which model it is of.
_OTHERS: Mapping[str, Mapping[str, _Origin]] = {
    "detrex": {
        "detr": _Origin(_fixed(detrex_family.detr_names), no_object=True),
        "conditional_detr": _Origin(_fixed(detrex_family.conditional_detr_names)),
        "dab_detr": _Origin(_fixed(detrex_family.dab_detr_names)),
        "dino": _Origin(_by_depth_and_levels(detrex_family.dino_names), binary_encoder=False),
    },
    "transformers": {
        "detr": _Origin(_fixed(transformers_family.detr_names), no_object=True),
        "conditional_detr": _Origin(_fixed(transformers_family.conditional_detr_names)),
        "dab_detr": _Origin(_fixed(transformers_family.dab_detr_names)),
    },
}
_MODEL_OF: Mapping[str, Callable[[State], str | None]] = {
    "detrex": detrex_family.model_of,
    "transformers": transformers_family.model_of,
}


def family_model_of(state: State) -> str | None:
    """Which model of the family a state dict with our names is, by what other projects call it; None for others."""
    source = "transformer.query_source."
    if "transformer.decoder.layers.0.self_attn.query_content.weight" in state:
        return "dab_detr" if any(key.startswith(f"{source}anchors.") for key in state) else "conditional_detr"
    if any(key.startswith(f"{source}embed.") for key in state):
        has_place = any(key.startswith((f"{source}reference_points.", f"{source}anchors.")) for key in state)
        return None if has_place else "detr"
    place = "transformer.decoder.query_position.embed.layers.0.weight"
    return "dino" if place in state and f"{source}enc_output.weight" in state else None


def is_family(origin: str, state: State) -> bool:
    """Whether a file of a project, with its names, is of a model that ``from_family`` knows."""
    return origin in _AUTHORS or (origin in _MODEL_OF and _MODEL_OF[origin](state) is not None)


def from_family(origin: str, state: State, *, classes: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Our names for a state dict of one of ``FAMILY``, of detrex, or of transformers.

    Args:
        origin: the project.
        state: its names; ``is_family`` holds for it.
        classes: for each of our classes the row of their class heads and label table; None keeps all rows.

    Raises:
        ValueError: for keys that are not theirs, naming them.
    """
    if origin in _AUTHORS:
        kind = _AUTHORS[origin]
    else:
        model = _MODEL_OF[origin](state)
        assert model is not None
        kind = _OTHERS[origin][model]
    if origin == "transformers":
        state = transformers_family.filed(state)
    renamed = kind.names(state).to_ours(state)
    if "transformer.heads.class_embed.0.weight" not in renamed:
        raise ValueError(f"there is no class head of {origin}'s model among the keys, such as {sorted(state)[:5]}")
    if classes is None:
        return renamed
    return choose_classes(renamed, classes, binary_encoder=kind.binary_encoder, no_object=kind.no_object)


def to_family(target: str, state: State) -> dict[str, Tensor]:
    """The inverse of ``from_family``, all class rows kept, with the aliases that their checkpoints hold.

    Raises:
        ValueError: for a model that the project does not have, or for keys that it has no name for.
    """
    if target in _AUTHORS:
        return _AUTHORS[target].names(state).to_authors(state)
    model = family_model_of(state)
    if model is None or model not in _OTHERS[target]:
        raise ValueError(f"{target} has no such model; it has {', '.join(_OTHERS[target])}")
    renamed = _OTHERS[target][model].names(state).to_authors(state)
    return transformers_family.split(renamed) if target == "transformers" else renamed

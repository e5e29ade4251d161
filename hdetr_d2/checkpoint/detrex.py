"""Names of detrex's (H-)Deformable-DETR, to and from ours.

The table goes through the authors' names, of which detrex's are a bijection. With the same weights detrex detects
slightly different boxes: it bounds the logits of references at 1e-3 instead of 1e-5, and in evaluation it does not mask
the padding of a batch of different sizes.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from .authors import AuthorsLayout, from_authors, to_authors
from .backbones import RESNET, is_derived, prefixed, swapped
from .renaming import KeyTable

_TO_AUTHORS = KeyTable(
    [
        *prefixed(swapped(RESNET), "backbone.", "backbone.0.body."),
        *((f"backbone.{part}", f"backbone.0.body.{part}") for part in ("patch_embed.", "layers.", "norm*.")),
        ("neck.convs.*.conv.", "input_proj.*.0."),
        ("neck.convs.*.norm.", "input_proj.*.1."),
        ("transformer.level_embeds", "transformer.level_embed"),
        ("transformer.encoder.layers.*.attentions.0.", "transformer.encoder.layers.*.self_attn."),
        ("transformer.encoder.layers.*.norms.0.", "transformer.encoder.layers.*.norm1."),
        ("transformer.encoder.layers.*.norms.1.", "transformer.encoder.layers.*.norm2."),
        ("transformer.decoder.layers.*.attentions.0.attn.", "transformer.decoder.layers.*.self_attn."),
        ("transformer.decoder.layers.*.attentions.1.", "transformer.decoder.layers.*.cross_attn."),
        # By when they are used in detrex, by when they were written in the authors' code.
        ("transformer.decoder.layers.*.norms.0.", "transformer.decoder.layers.*.norm2."),
        ("transformer.decoder.layers.*.norms.1.", "transformer.decoder.layers.*.norm1."),
        ("transformer.decoder.layers.*.norms.2.", "transformer.decoder.layers.*.norm3."),
        *(
            (f"transformer.{part}.layers.*.ffns.0.layers.{theirs}.", f"transformer.{part}.layers.*.{authors}.")
            for part in ("encoder", "decoder")
            for theirs, authors in (("0.0", "linear1"), ("1", "linear2"))
        ),
        *(
            (f"transformer.{name}.", f"transformer.{name}.")
            for name in ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm", "reference_points")
        ),
        ("query_embedding.weight", "query_embed.weight"),
        *(
            (f"{prefix}{head}.*.", f"{prefix}{head}.*.")
            for prefix in ("", "transformer.decoder.")
            for head in ("class_embed", "bbox_embed")
        ),
    ]
)
_EXTRA = "neck.extra_convs."


def from_detrex(
    state: Mapping[str, Tensor], *, num_queries: int = 300, classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename a state dict of detrex; arguments and result as ``from_authors`` has them.

    Raises:
        ValueError: for keys that detrex does not have, naming them.
    """
    num_convs = sum(key.startswith("neck.convs.") and key.endswith(".conv.weight") for key in state)
    renamed, unknown = {}, []
    for key, value in state.items():
        if is_derived(key):
            continue
        name = _TO_AUTHORS.to_ours(_move_level(key, _EXTRA, "neck.convs.", num_convs))
        if name is None:
            unknown.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise ValueError(f"{len(unknown)} keys are not of detrex's Deformable-DETR, such as {unknown[:5]}")
    return from_authors(renamed, num_queries=num_queries, classes=classes)


def to_detrex(state: Mapping[str, Tensor], *, layout: AuthorsLayout) -> dict[str, Tensor]:
    """The inverse of ``from_detrex``, with the aliases that their checkpoints hold."""
    authors = to_authors(state, layout=layout)
    # Levels that no backbone feature feeds are a list of their own; their convolution is strided and 3 x 3.
    num_convs = sum(
        key.startswith("input_proj.") and value.ndim == 4 and value.shape[-1] == 1 for key, value in authors.items()
    )
    renamed = {}
    for key, value in authors.items():
        name = _TO_AUTHORS.to_theirs(key)
        if name is None:
            raise ValueError(f"{key} has no name in detrex")
        level = name.removeprefix("neck.convs.").split(".")[0]
        if name.startswith("neck.convs.") and int(level) >= num_convs:
            name = _move_level(name, "neck.convs.", _EXTRA, -num_convs)
        renamed[name] = value
    return renamed


def _move_level(key: str, old: str, new: str, offset: int) -> str:
    """``old<i>.rest`` as ``new<i + offset>.rest``; other keys as they are."""
    index, _, rest = key.removeprefix(old).partition(".")
    if not key.startswith(old) or not index.isdecimal():
        return key
    return f"{new}{int(index) + offset}.{rest}"

"""Names of the authors' (H-)Deformable-DETR code, to and from ours."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdetr_d2.supervision import PRIMARY, HybridBranch

from .backbones import RESNET, SWIN, is_derived, prefixed
from .class_rows import choose_classes
from .renaming import KeyTable

PAIRS = [
    *prefixed(RESNET + SWIN, "backbone.0.body.", "backbone."),
    ("input_proj.*.", "neck.levels.*."),
    ("transformer.level_embed", "transformer.level_embed"),
    ("transformer.encoder.layers.*.self_attn.", "transformer.encoder.layers.*.self_attn."),
    ("transformer.encoder.layers.*.norm1.", "transformer.encoder.layers.*.self_attn_norm."),
    ("transformer.encoder.layers.*.linear", "transformer.encoder.layers.*.ffn.linear"),
    ("transformer.encoder.layers.*.norm2.", "transformer.encoder.layers.*.ffn_norm."),
    ("transformer.decoder.layers.*.self_attn.", "transformer.decoder.layers.*.self_attn."),
    # The authors number the norms by when they were written, not by when they are used.
    ("transformer.decoder.layers.*.norm2.", "transformer.decoder.layers.*.self_attn_norm."),
    ("transformer.decoder.layers.*.cross_attn.", "transformer.decoder.layers.*.cross_attn."),
    ("transformer.decoder.layers.*.norm1.", "transformer.decoder.layers.*.cross_attn_norm."),
    ("transformer.decoder.layers.*.linear", "transformer.decoder.layers.*.ffn.linear"),
    ("transformer.decoder.layers.*.norm3.", "transformer.decoder.layers.*.ffn_norm."),
    ("transformer.enc_output.", "transformer.query_source.enc_output."),
    ("transformer.enc_output_norm.", "transformer.query_source.enc_output_norm."),
    ("transformer.pos_trans.", "transformer.query_source.pos_trans."),
    ("transformer.pos_trans_norm.", "transformer.query_source.pos_trans_norm."),
    ("transformer.reference_points.", "transformer.query_source.reference_points."),
    ("class_embed.*.", "transformer.heads.class_embed.*."),
    ("bbox_embed.*.", "transformer.heads.bbox_embed.*."),
]
TABLE = KeyTable(PAIRS)

_ALIASES = ("transformer.decoder.class_embed.", "transformer.decoder.bbox_embed.")
_HEADS = ("class_embed", "bbox_embed")


@dataclass(frozen=True)
class AuthorsLayout:
    """What the names alone do not say.

    Args:
        num_layers: decoder layers.
        two_stage: whether the encoder has a pair of heads, the one after the decoder's.
        refine: whether every decoder layer has heads of its own.
    """

    num_layers: int
    two_stage: bool
    refine: bool

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "AuthorsLayout":
        """Read it off a state dict with the authors' names.

        Raises:
            ValueError: where the keys are not theirs.
        """
        numbers = {int(key.split(".")[3]) for key in state if re.match(r"transformer\.decoder\.layers\.\d+\.", key)}
        if not numbers or "class_embed.0.weight" not in state:
            raise ValueError(
                "the state dict does not have the names of the authors' Deformable-DETR code: "
                f"no transformer.decoder.layers.* or class_embed.0.weight among {sorted(state)[:5]} ..."
            )
        refine = any(key.startswith("transformer.decoder.bbox_embed.") for key in state) or _differ(state)
        return cls(num_layers=max(numbers) + 1, two_stage="transformer.enc_output.weight" in state, refine=refine)

    @classmethod
    def of_ours(cls, state: Mapping[str, Tensor]) -> "AuthorsLayout":
        """Read it off a state dict with our names.

        Raises:
            ValueError: where the keys are not ours.
        """
        numbers = {int(key.split(".")[3]) for key in state if re.match(r"transformer\.decoder\.layers\.\d+\.", key)}
        if not numbers or "transformer.heads.class_embed.0.weight" not in state:
            raise ValueError(f"the state dict does not have the names of a model of hdetr_d2: {sorted(state)[:5]} ...")
        return cls(
            num_layers=max(numbers) + 1,
            two_stage="transformer.query_source.enc_output.weight" in state,
            refine="transformer.heads.bbox_embed.1.layers.0.weight" in state,
        )


def from_authors(
    state: Mapping[str, Tensor], *, num_queries: int = 300, classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename a state dict of the authors' H-Deformable-DETR or Deformable-DETR code.

    Args:
        state: their ``checkpoint["model"]``.
        num_queries: of the one-to-one group; further rows of their query table are the one-to-many group's.
        classes: for each of our classes the row of their class heads, such as COCO's category ids for its 80
            contiguous classes; None keeps all rows. The encoder's head keeps row 0 first whatever is asked, because
            that row is the objectness that ranks proposals and no class.

    Returns:
        Our names; tensors are shared with ``state`` where no rows were chosen.

    Raises:
        ValueError: for keys that are not theirs, naming them.
    """
    layout = AuthorsLayout.of(state)
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        if key == "query_embed.weight":
            renamed.update(_split_queries(value, num_queries, layout))
        elif not (key.startswith(_ALIASES) or is_derived(key)):
            name = TABLE.to_ours(key)
            if name is None:
                unknown.append(key)
            else:
                renamed[name] = value
    if unknown:
        raise ValueError(f"{len(unknown)} keys are not of the authors' code, such as {unknown[:5]}")
    renamed = _arrange_heads(renamed, layout)
    return renamed if classes is None else choose_classes(renamed, classes)


def to_authors(state: Mapping[str, Tensor], *, layout: AuthorsLayout) -> dict[str, Tensor]:
    """The inverse of ``from_authors`` (all class rows kept), with the aliases that their checkpoints hold.

    Args:
        state: our names.
        layout: of the model that it belongs to.

    Returns:
        Their names.
    """
    renamed: dict[str, Tensor] = {}
    queries = []
    for key, value in state.items():
        if key.startswith(("transformer.query_source.content.", "transformer.query_source.embed.")):
            queries.append((not key.endswith(f".{PRIMARY}"), value))
        elif key.startswith("transformer.heads.encoder_"):
            head, rest = key.removeprefix("transformer.heads.encoder_").split(".", 1)
            renamed[f"{head}.{layout.num_layers}.{rest}"] = value
        else:
            name = TABLE.to_theirs(key)
            if name is None:
                raise ValueError(f"{key} has no name in the authors' code")
            renamed[name] = value
    if queries:
        renamed["query_embed.weight"] = torch.cat([value for _, value in sorted(queries, key=lambda item: item[0])])
    for key in [key for key in renamed if key.startswith(_HEADS)]:
        head, index, rest = key.split(".", 2)
        slots = [int(index)]
        if not layout.refine and index == "0":
            slots = list(range(layout.num_layers + layout.two_stage))
        for slot in slots:
            renamed[f"{head}.{slot}.{rest}"] = renamed[key]
            if layout.refine if head == "bbox_embed" else layout.two_stage:
                renamed[f"transformer.decoder.{head}.{slot}.{rest}"] = renamed[key]
    return renamed


def _differ(state: Mapping[str, Tensor]) -> bool:
    """Whether layers have box heads of their own, where the aliases that say so were stripped from a file."""
    heads = {key: value for key, value in state.items() if re.fullmatch(r"bbox_embed\.\d+\.layers\.\d+\.weight", key)}
    return any(
        not torch.equal(value, heads.get(re.sub(r"\d+", "0", key, count=1), value)) for key, value in heads.items()
    )


def _split_queries(table: Tensor, num_queries: int, layout: AuthorsLayout) -> dict[str, Tensor]:
    kind = "content" if layout.two_stage else "embed"
    groups = {PRIMARY: table[:num_queries], HybridBranch.group: table[num_queries:]}
    return {f"transformer.query_source.{kind}.{name}": rows for name, rows in groups.items() if len(rows)}


def _arrange_heads(state: dict[str, Tensor], layout: AuthorsLayout) -> dict[str, Tensor]:
    """Their list of heads is one longer with two stages, and repeats one module where nothing is refined."""
    arranged = {}
    for key, value in state.items():
        if not key.startswith("transformer.heads."):
            arranged[key] = value
            continue
        head, index, rest = key.removeprefix("transformer.heads.").split(".", 2)
        if not layout.refine:
            if index == "0":
                arranged[key] = value
        elif layout.two_stage and int(index) == layout.num_layers:
            arranged[f"transformer.heads.encoder_{head}.{rest}"] = value
        else:
            arranged[key] = value
    return arranged

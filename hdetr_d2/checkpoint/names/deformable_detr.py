"""Names of (H-)Deformable-DETR in the authors' code, in theirs for LVIS, in detrex and in transformers.

What a state dict does not say by its names:

- detrex bounds the logits of references at 1e-3 instead of 1e-5, and in evaluation it does not mask the padding of a
  batch of different sizes; with the same weights it detects slightly different boxes.
- transformers has no "no object" class, whatever its documentation says: ``num_labels`` rows are as many sigmoid
  classes. Its two-stage model takes the content of queries from the proposals, our ``mixed=False``, cannot give the
  encoder's head another width, nor hold queries for training only. With refinement and one stage a new model of
  version 5 has one class head under all names, and files hold one name; a file with different heads, such as ours,
  loads as it is (with a warning). Files keep the names of version 4, whatever version wrote them; in memory version 5
  has others. Both are read.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hdetr_d2.supervision import PRIMARY, HybridBranch

from ..class_heads import FIRST_HEAD
from ..renaming import (
    Code,
    KeyTable,
    Names,
    Pairs,
    State,
    count_decoder_layers,
    join_projections,
    prefixed,
    split_projections,
)
from .backbones import DETECTRON2_RESNET, RESNET, SWIN, TRANSFORMERS_BODY, TRANSFORMERS_RESNET_TO_TIMM

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_ENCODER, _DECODER = (f"transformer.{part}.layers.*." for part in ("encoder", "decoder"))
_SOURCE_PARTS = ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm", "reference_points")

AUTHORS_BODY: Pairs = [
    ("input_proj.*.", "neck.levels.*."),
    ("transformer.level_embed", "transformer.level_embed"),
    (f"{_ENCODER}self_attn.", f"{_ENCODER}self_attn."),
    (f"{_ENCODER}norm1.", f"{_ENCODER}self_attn_norm."),
    (f"{_ENCODER}linear", f"{_ENCODER}ffn.linear"),
    (f"{_ENCODER}norm2.", f"{_ENCODER}ffn_norm."),
    (f"{_DECODER}self_attn.", f"{_DECODER}self_attn."),
    # The authors number the norms by when they were written, not by when they are used.
    (f"{_DECODER}norm2.", f"{_DECODER}self_attn_norm."),
    (f"{_DECODER}cross_attn.", f"{_DECODER}cross_attn."),
    (f"{_DECODER}norm1.", f"{_DECODER}cross_attn_norm."),
    (f"{_DECODER}linear", f"{_DECODER}ffn.linear"),
    (f"{_DECODER}norm3.", f"{_DECODER}ffn_norm."),
    *((f"transformer.{part}.", f"{_SOURCE}{part}.") for part in _SOURCE_PARTS),
]
"""What the authors' code and its descendants have between backbone and heads."""
AUTHORS: Pairs = [*prefixed(RESNET + SWIN, "backbone.0.body.", "backbone."), *AUTHORS_BODY]
LVIS: Pairs = [  # Detic with their model inside, on Detectron2's ResNet or Swin
    *prefixed(DETECTRON2_RESNET, "backbone.0.backbone.", "backbone."),
    *prefixed(SWIN, "backbone.0.backbone.", "backbone."),
    *AUTHORS_BODY,
]

DETREX_LAYERS: Pairs = [
    *prefixed(DETECTRON2_RESNET, "backbone.", "backbone."),
    (f"{_ENCODER}norms.0.", f"{_ENCODER}self_attn_norm."),
    (f"{_ENCODER}norms.1.", f"{_ENCODER}ffn_norm."),
    (f"{_DECODER}norms.0.", f"{_DECODER}self_attn_norm."),
    (f"{_DECODER}norms.1.", f"{_DECODER}cross_attn_norm."),
    (f"{_DECODER}norms.2.", f"{_DECODER}ffn_norm."),
    *(
        (f"{layer}ffns.0.layers.{theirs}.", f"{layer}ffn.{ours}.")
        for layer in (_ENCODER, _DECODER)
        for theirs, ours in (("0.0", "linear1"), ("0.1", "activation"), ("1", "linear2"))
    ),
]
"""What detrex's models have in common."""
DETREX: Pairs = [
    *DETREX_LAYERS,
    *prefixed(SWIN, "backbone.", "backbone."),
    ("transformer.level_embeds", "transformer.level_embed"),
    (f"{_ENCODER}attentions.0.", f"{_ENCODER}self_attn."),
    (f"{_DECODER}attentions.0.attn.", f"{_DECODER}self_attn."),
    (f"{_DECODER}attentions.1.", f"{_DECODER}cross_attn."),
    *((f"transformer.{part}.", f"{_SOURCE}{part}.") for part in _SOURCE_PARTS),
]

TRANSFORMERS: Pairs = [
    *prefixed(RESNET, TRANSFORMERS_BODY, "backbone."),
    ("model.input_proj.*.", "neck.levels.*."),
    ("model.level_embed", "transformer.level_embed"),
    *((f"model.{part}.", f"{_SOURCE}{part}.") for part in _SOURCE_PARTS),
    ("model.encoder.layers.*.self_attn.", f"{_ENCODER}self_attn."),
    ("model.encoder.layers.*.self_attn_layer_norm.", f"{_ENCODER}self_attn_norm."),
    ("model.encoder.layers.*.fc", f"{_ENCODER}ffn.linear"),
    ("model.encoder.layers.*.final_layer_norm.", f"{_ENCODER}ffn_norm."),
    ("model.decoder.layers.*.self_attn.", f"{_DECODER}self_attn."),
    ("model.decoder.layers.*.self_attn_layer_norm.", f"{_DECODER}self_attn_norm."),
    ("model.decoder.layers.*.encoder_attn.", f"{_DECODER}cross_attn."),
    ("model.decoder.layers.*.encoder_attn_layer_norm.", f"{_DECODER}cross_attn_norm."),
    ("model.decoder.layers.*.fc", f"{_DECODER}ffn.linear"),
    ("model.decoder.layers.*.final_layer_norm.", f"{_DECODER}ffn_norm."),
]
TRANSFORMERS_MEMORY: Pairs = [
    ("model.backbone.model.", TRANSFORMERS_BODY),
    *((f"model.{part}.layers.*.mlp.fc", f"model.{part}.layers.*.fc") for part in ("encoder", "decoder")),
]
"""Names that version 5 has in memory, and those of files, of all models."""
_MEMORY = KeyTable(
    [*TRANSFORMERS_MEMORY, ("model.decoder.layers.*.self_attn.o_proj.", "model.decoder.layers.*.self_attn.out_proj.")]
)

_GROUPS = (PRIMARY, HybridBranch.group)
_NOT_OF_THE_MODEL = ("criterion.", "detr.criterion.")  # class frequencies of the federated loss


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
    def of(cls, state: State, prefix: str = "transformer.") -> "AuthorsLayout":
        """Read it off a state dict with the names of the authors or of a project that took over theirs.

        Args:
            state: their names.
            prefix: of the transformer's.

        Raises:
            ValueError: where the keys are not theirs.
        """
        if "class_embed.0.weight" not in state:
            raise ValueError(
                "the state dict does not have the names of the authors' Deformable-DETR code or of one that took over "
                f"theirs: no class_embed.0.weight among {sorted(state)[:5]} ..."
            )
        num_layers = count_decoder_layers(state, f"{prefix}decoder.layers.")
        refine = any(key.startswith(f"{prefix}decoder.bbox_embed.") for key in state) or _differ(state)
        return cls(num_layers=num_layers, two_stage=f"{prefix}enc_output.weight" in state, refine=refine)

    @classmethod
    def of_ours(cls, state: State) -> "AuthorsLayout":
        """Read it off a state dict with our names.

        Raises:
            ValueError: where the keys are not ours.
        """
        if FIRST_HEAD not in state:
            raise ValueError(f"the state dict does not have the names of a model of hdetr_d2: {sorted(state)[:5]} ...")
        # With one layer there is no second pair to see; heads that the encoder does not share are for refinement, too.
        own = (f"{_HEADS}bbox_embed.1.layers.0.weight", f"{_HEADS}encoder_bbox_embed.layers.0.weight")
        return cls(
            num_layers=count_decoder_layers(state),
            two_stage=f"{_SOURCE}enc_output.weight" in state,
            refine=any(key in state for key in own),
        )

    @property
    def content(self) -> str:
        """What the rows of the query table are here."""
        return f"{_SOURCE}{'content' if self.two_stage else 'embed'}."

    def heads(self, decoder: str) -> tuple[Pairs, list[tuple[str, str]]]:
        """Pairs and aliases of heads. Their list is one longer with two stages; without refinement all are one module.

        Args:
            decoder: prefix of the names under which the decoder holds them once more.
        """
        pairs: Pairs = []
        aliases: list[tuple[str, str]] = []
        for head, held in (("class_embed", self.two_stage), ("bbox_embed", self.refine)):
            if self.refine:
                if self.two_stage:
                    pairs.append((f"{head}.{self.num_layers}.", f"{_HEADS}encoder_{head}."))
                pairs.append((f"{head}.*.", f"{_HEADS}{head}.*."))
            else:
                pairs.append((f"{head}.0.", f"{_HEADS}{head}.0."))
                aliases += [(f"{head}.{i}.", f"{head}.0.") for i in range(1, self.num_layers + self.two_stage)]
            if held:
                aliases.append((f"{decoder}{head}.", f"{head}."))
        return pairs, aliases


def _names(
    pairs: Pairs, layout: AuthorsLayout, *, table: str = "query_embed", decoder: str = "transformer.decoder.", code: str
) -> Names:
    """A table with heads and queries; the query table is split by groups (`split_queries`)."""
    heads, aliases = layout.heads(decoder)
    queries = [(f"{table}.{group}", f"{layout.content}{group}") for group in _GROUPS]
    held = [f"{decoder}{head}." for head in ("class_embed", "bbox_embed")]
    return Names([*pairs, *heads, *queries], aliases=aliases, ignored=held, code=code)


def authors_names(layout: AuthorsLayout) -> Names:
    """The authors' code."""
    return _names(AUTHORS, layout, code="the authors' code")


def lvis_names(layout: AuthorsLayout) -> Names:
    """H-Detic-LVIS, without the prefix of its model."""
    return _names(LVIS, layout, code="H-Detic-LVIS")


def detrex_names(layout: AuthorsLayout, num_convs: int) -> Names:
    """Detrex.

    Args:
        layout: of the model.
        num_convs: feature levels from the backbone; further ones are in a list of their own.
    """
    return _names([*DETREX, *neck_pairs(num_convs)], layout, table="query_embedding", code="detrex's Deformable-DETR")


def transformers_names(layout: AuthorsLayout) -> Names:
    """transformers, with the names of files, a ResNet of timm, and joined projections (`filed`)."""
    return _names(
        TRANSFORMERS,
        layout,
        table="model.query_position_embeddings",
        decoder="model.decoder.",
        code="transformers' DeformableDetr",
    )


def neck_pairs(num_convs: int) -> Pairs:
    """Detrex' names of a neck: levels that the backbone does not feed, of which there are two at most, come first."""
    slots = [("conv", 0), ("norm", 1)]
    extra = [
        (f"neck.extra_convs.{i}.{part}.", f"neck.levels.{num_convs + i}.{slot}.")
        for i in range(2)
        for part, slot in slots
    ]
    return extra + [(f"neck.convs.*.{part}.", f"neck.levels.*.{slot}.") for part, slot in slots]


_LEVEL = re.compile(r"neck\.(levels\.\d+\.0|convs\.\d+\.conv)\.weight")


def count_convs(state: State) -> int:
    """Feature levels that are convolved 1 x 1, of a state dict with our names or detrex'."""
    levels = (key for key, value in state.items() if value.ndim == 4 and value.shape[-1] == 1)
    return sum(bool(_LEVEL.fullmatch(key)) for key in levels)


def _either(make: Callable[[AuthorsLayout], Names], prefix: str = "transformer.") -> Callable[[State], Names]:
    """Names by the layout of a state dict of either side."""
    return lambda state: make(AuthorsLayout.of_ours(state) if FIRST_HEAD in state else AuthorsLayout.of(state, prefix))


def _detrex_either(state: State) -> Names:
    return _either(lambda layout: detrex_names(layout, count_convs(state)))(state)


def split_queries(state: State, num_queries: int, table: str) -> dict[str, Tensor]:
    """Their query table, whose first rows are the one-to-one group's, as one table a group."""
    split = {key: value for key, value in state.items() if key != f"{table}.weight"}
    if f"{table}.weight" in state:
        rows = state[f"{table}.weight"]
        for group, part in zip(_GROUPS, (rows[:num_queries], rows[num_queries:])):
            if len(part):
                split[f"{table}.{group}"] = part
    return split


def merge_queries(state: State, table: str) -> dict[str, Tensor]:
    """The inverse of ``split_queries``."""
    names = [f"{table}.{group}" for group in _GROUPS]
    merged = {key: value for key, value in state.items() if key not in names}
    parts = [state[name] for name in names if name in state]
    return merged | ({f"{table}.weight": torch.cat(parts)} if parts else {})


def filed(state: State, memory: KeyTable) -> dict[str, Tensor]:
    """The names of a file of transformers, with a ResNet of timm and joined projections, from a file's or memory's."""
    in_file = ((memory.to_ours(key) or key, value) for key, value in state.items())
    return join_projections({TRANSFORMERS_RESNET_TO_TIMM.to_ours(key) or key: value for key, value in in_file})


def from_authors(state: State, *, num_queries: int = 300) -> dict[str, Tensor]:
    """Our names for a state dict of the authors' code; as `Code.to_ours`."""
    return CODES["hdetr"].to_ours(state, num_queries=num_queries)


def to_authors(state: State, *, layout: AuthorsLayout | None = None) -> dict[str, Tensor]:
    """The inverse of ``from_authors``; a part of a state dict, such as gradients, needs the ``layout`` of the whole."""
    if layout is None:
        return CODES["hdetr"].to_theirs(state)
    return merge_queries(authors_names(layout).apply(state, to="theirs"), "query_embed")


def _read_table(table: str) -> Callable[[State, int], State]:
    return lambda state, num_queries: split_queries(state, num_queries, table)


def _write_table(table: str) -> Callable[[State], dict[str, Tensor]]:
    return lambda state: merge_queries(state, table)


def _read_lvis(state: State, num_queries: int) -> State:
    """Without what is not of the model; of the encoder's class head only row 0 was taught, what an object is."""
    bare = {
        key.removeprefix("detr.") if key.startswith("detr.") else f"not in detr: {key}": value
        for key, value in state.items()
        if not key.startswith(_NOT_OF_THE_MODEL)
    }
    layout = AuthorsLayout.of(bare)
    if layout.two_stage:
        for part in ("weight", "bias"):
            key = f"class_embed.{layout.num_layers}.{part}"
            if key in bare:
                bare[key] = bare[key][:1]
    return split_queries(bare, num_queries, "query_embed")


def _write_lvis(state: State) -> dict[str, Tensor]:
    return {f"detr.{key}": value for key, value in merge_queries(state, "query_embed").items()}


def _read_transformers(state: State, num_queries: int) -> State:
    return split_queries(_restore_tied(filed(state, _MEMORY)), num_queries, "model.query_position_embeddings")


def _write_transformers(state: State) -> dict[str, Tensor]:
    table = "model.query_position_embeddings"
    two_stage = "model.enc_output.weight" in state
    if two_stage and any(key.startswith(f"{table}.") for key in state):
        raise ValueError("transformers' two-stage model has no learned contents of queries (mixed query selection)")
    if two_stage and not any(key.startswith("model.decoder.bbox_embed.") for key in state):
        raise ValueError("transformers has no two-stage model without refinement")
    return split_projections(merge_queries(state, table))


def _restore_tied(state: State) -> dict[str, Tensor]:
    """A file holds one name of tensors that have two; the authors' code has both."""
    restored = dict(state)
    for key, value in state.items():
        for head in ("class_embed.", "bbox_embed."):
            if key.startswith(f"model.decoder.{head}"):
                restored.setdefault(key.removeprefix("model.decoder."), value)
    for key in [key for key in restored if key.startswith("bbox_embed.") and key.endswith(".layers.0.weight")]:
        layer = key.split(".")[1]
        for part in ("weight", "bias"):
            if f"class_embed.0.{part}" in restored:
                restored.setdefault(f"class_embed.{layer}.{part}", restored[f"class_embed.0.{part}"])
    return restored


def _differ(state: State) -> bool:
    """Whether layers have box heads of their own, where the aliases that say so were stripped from a file."""
    heads = {key: value for key, value in state.items() if re.fullmatch(r"bbox_embed\.\d+\.layers\.\d+\.weight", key)}
    return any(
        not torch.equal(value, heads.get(re.sub(r"\d+", "0", key, count=1), value)) for key, value in heads.items()
    )


_AUTHORS_CODE = Code(
    names=_either(authors_names), prepare=_read_table("query_embed"), finish=_write_table("query_embed")
)
CODES = {
    "hdetr": _AUTHORS_CODE,
    "deformable_detr": _AUTHORS_CODE,
    "hdetr_lvis": Code(names=_either(lvis_names), prepare=_read_lvis, finish=_write_lvis),
    "detrex": Code(
        names=_detrex_either, prepare=_read_table("query_embedding"), finish=_write_table("query_embedding")
    ),
    "transformers": Code(
        names=_either(transformers_names, "model."), prepare=_read_transformers, finish=_write_transformers
    ),
}
"""By the project's name."""

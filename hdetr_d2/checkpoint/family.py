"""Names of the authors' DETR, Conditional, DAB-, DN-, DINO-, MS- and Mr. DETR code, to and from ours.

Sources: facebookresearch/detr, Atten4Vis/ConditionalDETR and MS-DETR, IDEA-Research/DAB-DETR, DN-DETR and DINO,
Visual-AI/Mr.DETR.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from .authors import PAIRS
from .backbones import RESNET, is_derived, prefixed, swapped
from .renaming import KeyTable

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_PLACE = "transformer.decoder.query_position."
_ANCHORS = [
    ("transformer.decoder.ref_point_head.", f"{_PLACE}embed."),
    ("transformer.decoder.query_scale.", f"{_PLACE}scale."),
    ("refpoint_embed.weight", f"{_SOURCE}anchors.{PRIMARY}"),
    ("label_enc.weight", "transformer.denoising.label_embed.weight"),
]
_ONE_PAIR = [("class_embed.", f"{_HEADS}class_embed.0."), ("bbox_embed.", f"{_HEADS}bbox_embed.0.")]
_DENSE = [
    *prefixed(RESNET, "backbone.0.body.", "backbone."),
    ("input_proj.", "neck.levels.0.0."),
    ("transformer.encoder.layers.*.self_attn.", "transformer.encoder.layers.*.self_attn."),
    ("transformer.encoder.layers.*.norm1.", "transformer.encoder.layers.*.self_attn_norm."),
    ("transformer.encoder.layers.*.norm2.", "transformer.encoder.layers.*.ffn_norm."),
    ("transformer.decoder.layers.*.norm1.", "transformer.decoder.layers.*.self_attn_norm."),
    ("transformer.decoder.layers.*.norm2.", "transformer.decoder.layers.*.cross_attn_norm."),
    ("transformer.decoder.layers.*.norm3.", "transformer.decoder.layers.*.ffn_norm."),
    ("transformer.decoder.norm.", "transformer.decoder.norm."),
    *(
        (f"transformer.{part}.layers.*.{name}", f"transformer.{part}.layers.*.ffn.{name}")
        for part in ("encoder", "decoder")
        for name in ("linear", "activation")
    ),
    *_ONE_PAIR,
]
_CONDITIONAL_PARTS = {
    "sa_qcontent_proj": "self_attn.query_content",
    "sa_qpos_proj": "self_attn.query_position",
    "sa_kcontent_proj": "self_attn.key_content",
    "sa_kpos_proj": "self_attn.key_position",
    "sa_v_proj": "self_attn.value",
    "self_attn.out_proj": "self_attn.out",
    "ca_qcontent_proj": "cross_attn.query_content",
    "ca_qpos_proj": "cross_attn.query_position",
    "ca_qpos_sine_proj": "cross_attn.query_spatial",
    "ca_kcontent_proj": "cross_attn.key_content",
    "ca_kpos_proj": "cross_attn.key_position",
    "ca_v_proj": "cross_attn.value",
    "cross_attn.out_proj": "cross_attn.out",
}
_CONDITIONAL = [
    (f"transformer.decoder.layers.*.{theirs}.", f"transformer.decoder.layers.*.{ours}.")
    for theirs, ours in _CONDITIONAL_PARTS.items()
]


class Names:
    """Names of one code, a bijection but for aliases: keys under which a module is saved once more.

    Args:
        pairs: (theirs, ours), as ``KeyTable`` has them.
        aliases: (prefix of the alias, prefix of the name itself), of theirs.
        code: what it is called in messages.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], *, aliases: Sequence[tuple[str, str]] = (), code: str) -> None:
        self._table = KeyTable(pairs)
        self._aliases = list(aliases)
        self._code = code

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename their state dict; tensors are shared.

        Raises:
            ValueError: for keys that are not theirs, naming them.
        """
        renamed, unknown = {}, []
        for key, value in state.items():
            if is_derived(key) or any(key.startswith(alias) for alias, _ in self._aliases):
                continue
            name = self._table.to_ours(key)
            if name is None:
                unknown.append(key)
            else:
                renamed[name] = value
        if unknown:
            raise ValueError(f"{len(unknown)} keys are not of {self._code}, such as {unknown[:5]}")
        return renamed

    def to_authors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename ours, with the aliases that their checkpoints hold.

        Raises:
            ValueError: for keys that their code has no name for, naming them.
        """
        renamed, unknown = {}, []
        for key, value in state.items():
            name = self._table.to_theirs(key)
            if name is None:
                unknown.append(key)
            else:
                renamed[name] = value
        if unknown:
            raise ValueError(f"{len(unknown)} keys have no name in {self._code}, such as {unknown[:5]}")
        for alias, name in self._aliases:
            again = {alias + key.removeprefix(name): value for key, value in renamed.items() if key.startswith(name)}
            renamed.update(again)
        return renamed


def detr_names() -> Names:
    """DETR."""
    pairs = [
        *_DENSE,
        ("transformer.decoder.layers.*.self_attn.", "transformer.decoder.layers.*.self_attn."),
        ("transformer.decoder.layers.*.multihead_attn.", "transformer.decoder.layers.*.cross_attn."),
        ("query_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
    ]
    return Names(pairs, code="DETR")


def conditional_detr_names() -> Names:
    """Conditional DETR."""
    pairs = [
        *_DENSE,
        *_CONDITIONAL,
        ("transformer.decoder.ref_point_head.", f"{_SOURCE}reference_points."),
        ("transformer.decoder.query_scale.", f"{_PLACE}scale."),
        ("query_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
    ]
    return Names(pairs, code="Conditional DETR")


def dab_detr_names() -> Names:
    """DAB-DETR and DN-DETR."""
    pairs = [
        *_DENSE,
        *_ANCHORS,
        *_CONDITIONAL,
        ("transformer.encoder.query_scale.", "transformer.encoder.position_scale."),
        ("transformer.decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("transformer.patterns.weight", f"{_SOURCE}patterns"),
    ]
    return Names(pairs, aliases=[("transformer.decoder.bbox_embed.", "bbox_embed.")], code="DAB-DETR or DN-DETR")


def dab_deformable_detr_names() -> Names:
    """DAB-Deformable-DETR and DN-Deformable-DETR."""
    pairs = [*PAIRS, *_ANCHORS, ("tgt_embed.weight", f"{_SOURCE}embed.{PRIMARY}")]
    aliases = [("transformer.decoder.bbox_embed.", "bbox_embed.")]
    return Names(pairs, aliases=aliases, code="DAB-Deformable-DETR or DN-Deformable-DETR")


def dino_names(num_layers: int) -> Names:
    """DINO, whose decoder layers share one pair of heads."""
    pairs = [
        *(pair for pair in PAIRS if not pair[0].startswith(("class_embed", "bbox_embed"))),
        *_ANCHORS,
        ("class_embed.0.", f"{_HEADS}class_embed.0."),
        ("bbox_embed.0.", f"{_HEADS}bbox_embed.0."),
        ("transformer.decoder.norm.", "transformer.decoder.norm."),
        ("transformer.tgt_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
        ("transformer.enc_out_class_embed.", f"{_HEADS}encoder_class_embed."),
        ("transformer.enc_out_bbox_embed.", f"{_HEADS}encoder_bbox_embed."),
    ]
    aliases = []
    for head in ("class_embed", "bbox_embed"):
        aliases += [(f"{head}.{layer}.", f"{head}.0.") for layer in range(1, num_layers)]
        aliases += [(f"transformer.decoder.{head}.{layer}.", f"{head}.0.") for layer in range(num_layers)]
    return Names(pairs, aliases=aliases, code="DINO")


def ms_detr_names(num_layers: int) -> Names:
    """MS-DETR on two-stage Deformable DETR, whose norms are numbered in the order of their use."""
    layer = "transformer.decoder.layers.*."
    pairs = [
        *_encoder_slot(num_layers),
        *(pair for pair in PAIRS if not pair[0].startswith(f"{layer}norm")),
        (f"{layer}norm1.", f"{layer}cross_attn_norm."),
        (f"{layer}norm2.", f"{layer}self_attn_norm."),
        (f"{layer}norm3.", f"{layer}ffn_norm."),
        (f"{layer}linear3.", f"{layer}tap.linear1."),
        (f"{layer}linear4.", f"{layer}tap.linear2."),
        (f"{layer}norm4.", f"{layer}tap_norm."),
        ("query_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
    ]
    aliases = [(f"transformer.decoder.{head}.", f"{head}.") for head in ("class_embed", "bbox_embed")]
    return Names(pairs, aliases=aliases, code="MS-DETR")


def mr_detr_names(num_layers: int, num_convs: int = 3) -> Names:
    """Mr. DETR, on detrex.

    Args:
        num_layers: decoder layers.
        num_convs: feature levels that are convolved 1 x 1; further ones are in a list of their own.
    """
    layer = "transformer.decoder.layers.*."
    pairs = [
        *_encoder_slot(num_layers),
        *prefixed(swapped(RESNET), "backbone.", "backbone."),
        *neck_pairs(num_convs),
        ("transformer.level_embeds", "transformer.level_embed"),
        ("transformer.encoder.layers.*.attentions.0.", "transformer.encoder.layers.*.self_attn."),
        ("transformer.encoder.layers.*.norms.0.", "transformer.encoder.layers.*.self_attn_norm."),
        ("transformer.encoder.layers.*.norms.1.", "transformer.encoder.layers.*.ffn_norm."),
        ("transformer.encoder.layers.*.ffns.0.layers.0.0.", "transformer.encoder.layers.*.ffn.linear1."),
        ("transformer.encoder.layers.*.ffns.0.layers.1.", "transformer.encoder.layers.*.ffn.linear2."),
        (f"{layer}attentions.0.attn.", f"{layer}self_attn."),
        (f"{layer}attentions.0.norm_o2o.", f"{layer}self_attn_norm."),
        (f"{layer}attentions.0.norm_o2m.", f"{layer}routes.instructed.self_attn_norm."),
        (f"{layer}attentions.0.instruction_o2m.weight", f"{layer}routes.instructed.instruction_content"),
        (f"{layer}attentions.0.instruction_o2m_pos.weight", f"{layer}routes.instructed.instruction_position"),
        (f"{layer}attentions.1.", f"{layer}cross_attn."),
        (f"{layer}norms.0.", f"{layer}cross_attn_norm."),
        (f"{layer}norms.1.", f"{layer}ffn_norm."),
        (f"{layer}ffns.0.layers.0.linear.linear.", f"{layer}ffn.linear1."),
        (f"{layer}ffns.0.layers.0.linear.linear_sep.", f"{layer}routes.own_ffn.ffn.linear1."),
        (f"{layer}ffns.0.layers.1.linear.", f"{layer}ffn.linear2."),
        (f"{layer}ffns.0.layers.1.linear_sep.", f"{layer}routes.own_ffn.ffn.linear2."),
        *((f"transformer.{name}.", f"{_SOURCE}{name}.") for name in ("enc_output", "pos_trans")),
        *((f"transformer.{name}_norm.", f"{_SOURCE}{name}_norm.") for name in ("enc_output", "pos_trans")),
        ("transformer.decoder.class_embed_o2m_encoder.", f"{_HEADS}group_class_embed.instructed."),
        ("transformer.decoder.bbox_embed_enc_o2m.", f"{_HEADS}group_bbox_embed.instructed."),
        ("class_embed.*.", f"{_HEADS}class_embed.*."),
        ("bbox_embed.*.", f"{_HEADS}bbox_embed.*."),
        ("query_embedding.weight", f"{_SOURCE}content.{PRIMARY}"),
        ("label_enc.weight", "transformer.denoising.label_embed.weight"),
    ]
    aliases = [(f"transformer.decoder.{head}.", f"{head}.") for head in ("class_embed", "bbox_embed")]
    return Names(pairs, aliases=aliases, code="Mr. DETR")


def neck_pairs(num_convs: int) -> list[tuple[str, str]]:
    """detrex' names of a neck: levels that the backbone does not feed, of which there are two at most, come first."""
    slots = [("conv", 0), ("norm", 1)]
    extra = [
        (f"neck.extra_convs.{i}.{part}.", f"neck.levels.{num_convs + i}.{slot}.")
        for i in range(2)
        for part, slot in slots
    ]
    return extra + [(f"neck.convs.*.{part}.", f"neck.levels.*.{slot}.") for part, slot in slots]


def _encoder_slot(num_layers: int) -> list[tuple[str, str]]:
    """The encoder's heads are one more in the list of the decoder's."""
    return [(f"{head}.{num_layers}.", f"{_HEADS}encoder_{head}.") for head in ("class_embed", "bbox_embed")]


def count_decoder_layers(state: Mapping[str, Tensor]) -> int:
    """Decoder layers of a state dict that names them ``transformer.decoder.layers.<i>.``.

    Raises:
        ValueError: where there are none.
    """
    found = (re.match(r"transformer\.decoder\.layers\.(\d+)\.", key) for key in state)
    numbers = [int(match.group(1)) for match in found if match]
    if not numbers:
        raise ValueError(f"there is no transformer.decoder.layers.* among the keys, such as {sorted(state)[:5]}")
    return max(numbers) + 1

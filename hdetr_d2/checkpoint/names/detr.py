"""Names of DETR, Conditional, DAB- and DN-DETR in the authors' code, in detrex and in transformers.

Sources: facebookresearch/detr, Atten4Vis/ConditionalDETR, IDEA-Research/DAB-DETR and DN-DETR. What a state dict does
not say by its names: transformers' DAB-DETR bounds the logits of references at 1e-5, the authors' and detrex' at 1e-3,
and detrex does not mask padding in evaluation. Files of transformers keep the names of version 4, whatever version
wrote them; in memory version 5 has others. Both are read.
"""

from collections.abc import Mapping

from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from ..class_heads import Scoring, queries_have_no_place
from ..renaming import Code, KeyTable, Names, Pairs, State, fixed, prefixed, split_projections
from .backbones import RESNET, TRANSFORMERS_BODY
from .deformable_detr import DETREX_LAYERS, TRANSFORMERS_MEMORY, filed

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_PLACE = "transformer.decoder.query_position."
_ENCODER, _DECODER = (f"transformer.{part}.layers.*." for part in ("encoder", "decoder"))
ANCHORS: Pairs = [
    ("transformer.decoder.ref_point_head.", f"{_PLACE}embed."),
    ("transformer.decoder.query_scale.", f"{_PLACE}scale."),
    ("refpoint_embed.weight", f"{_SOURCE}anchors.{PRIMARY}"),
    ("label_enc.weight", "transformer.denoising.label_embed.weight"),
]
"""What the authors' models with anchors have in common."""
_DENSE: Pairs = [
    *prefixed(RESNET, "backbone.0.body.", "backbone."),
    ("input_proj.", "neck.levels.0.0."),
    (f"{_ENCODER}self_attn.", f"{_ENCODER}self_attn."),
    (f"{_ENCODER}norm1.", f"{_ENCODER}self_attn_norm."),
    (f"{_ENCODER}norm2.", f"{_ENCODER}ffn_norm."),
    (f"{_DECODER}norm1.", f"{_DECODER}self_attn_norm."),
    (f"{_DECODER}norm2.", f"{_DECODER}cross_attn_norm."),
    (f"{_DECODER}norm3.", f"{_DECODER}ffn_norm."),
    ("transformer.decoder.norm.", "transformer.decoder.norm."),
    *(
        (f"transformer.{part}.layers.*.{name}", f"transformer.{part}.layers.*.ffn.{name}")
        for part in ("encoder", "decoder")
        for name in ("linear", "activation")
    ),
    ("class_embed.", f"{_HEADS}class_embed.0."),
    ("bbox_embed.", f"{_HEADS}bbox_embed.0."),
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
_CONDITIONAL: Pairs = [(f"{_DECODER}{theirs}.", f"{_DECODER}{ours}.") for theirs, ours in _CONDITIONAL_PARTS.items()]


_DETREX_DENSE: Pairs = [
    *DETREX_LAYERS,
    ("input_proj.", "neck.levels.0.0."),
    (f"{_ENCODER}attentions.0.attn.", f"{_ENCODER}self_attn."),
    ("transformer.decoder.post_norm_layer.", "transformer.decoder.norm."),
    ("class_embed.", f"{_HEADS}class_embed.0."),
    ("bbox_embed.", f"{_HEADS}bbox_embed.0."),
]
_DETREX_PARTS = {
    "query_content_proj": "query_content",
    "query_pos_proj": "query_position",
    "query_pos_sine_proj": "query_spatial",
    "key_content_proj": "key_content",
    "key_pos_proj": "key_position",
    "value_proj": "value",
    "out_proj": "out",
}
_DETREX_CONDITIONAL: Pairs = [
    *_DETREX_DENSE,
    *(
        (f"{_DECODER}attentions.{index}.{theirs}.", f"{_DECODER}{attention}.{ours}.")
        for index, attention in enumerate(("self_attn", "cross_attn"))
        for theirs, ours in _DETREX_PARTS.items()
    ),
    ("transformer.decoder.query_scale.", f"{_PLACE}scale."),
]


_T_ENCODER, _T_DECODER = (
    (f"model.{part}.layers.*.", f"transformer.{part}.layers.*.") for part in ("encoder", "decoder")
)
_T_PARTS = {
    "qcontent_proj": "query_content",
    "qpos_proj": "query_position",
    "kcontent_proj": "key_content",
    "kpos_proj": "key_position",
    "v_proj": "value",
}
_MEMORY = KeyTable(
    [
        *TRANSFORMERS_MEMORY,
        *(
            (f"model.{layer}.o_proj.", f"model.{layer}.out_proj.")
            for layer in ("encoder.layers.*.self_attn", "decoder.layers.*.self_attn", "decoder.layers.*.encoder_attn")
        ),
        *(
            (f"{_T_DECODER[0]}{attention}.{name}.", f"{_T_DECODER[0]}{short}_{name.replace('_', '', 1)}.")
            for attention, short in (("self_attn", "sa"), ("encoder_attn", "ca"))
            for name in ("q_content_proj", "q_pos_proj", "k_content_proj", "k_pos_proj")
        ),
        (f"{_T_DECODER[0]}encoder_attn.q_pos_sine_proj.", f"{_T_DECODER[0]}ca_qpos_sine_proj."),
    ]
)


def _layer(pair: tuple[str, str], names: Mapping[str, str]) -> Pairs:
    """Names within a layer."""
    theirs, ours = pair
    return [(theirs + a, ours + b) for a, b in names.items()]


_T_ALL: Pairs = [
    *prefixed(RESNET, TRANSFORMERS_BODY, "backbone."),
    ("model.input_projection.", "neck.levels.0.0."),
    *_layer(
        _T_ENCODER,
        {
            "self_attn.": "self_attn.",
            "self_attn_layer_norm.": "self_attn_norm.",
            "fc": "ffn.linear",
            "activation_fn.": "ffn.activation.",
            "final_layer_norm.": "ffn_norm.",
        },
    ),
    ("model.decoder.layernorm.", "transformer.decoder.norm."),
    ("bbox_predictor.", f"{_HEADS}bbox_embed.0."),
]
_T_DETR: Pairs = [
    *_T_ALL,
    *_layer(
        _T_DECODER,
        {
            "self_attn_layer_norm.": "self_attn_norm.",
            "encoder_attn_layer_norm.": "cross_attn_norm.",
            "fc": "ffn.linear",
            "final_layer_norm.": "ffn_norm.",
        },
    ),
    ("model.query_position_embeddings.weight", f"{_SOURCE}embed.{PRIMARY}"),
    ("class_labels_classifier.", f"{_HEADS}class_embed.0."),
]


def detr_names() -> Names:
    """DETR."""
    pairs = [
        *_DENSE,
        (f"{_DECODER}self_attn.", f"{_DECODER}self_attn."),
        (f"{_DECODER}multihead_attn.", f"{_DECODER}cross_attn."),
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
        *ANCHORS,
        *_CONDITIONAL,
        ("transformer.encoder.query_scale.", "transformer.encoder.position_scale."),
        ("transformer.decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("transformer.patterns.weight", f"{_SOURCE}patterns"),
    ]
    return Names(pairs, aliases=[("transformer.decoder.bbox_embed.", "bbox_embed.")], code="DAB-DETR or DN-DETR")


def detrex_detr_names() -> Names:
    """Detrex' DETR."""
    pairs = [
        *_DETREX_DENSE,
        (f"{_DECODER}attentions.0.attn.", f"{_DECODER}self_attn."),
        (f"{_DECODER}attentions.1.attn.", f"{_DECODER}cross_attn."),
        ("query_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
    ]
    return Names(pairs, code="detrex's DETR")


def detrex_conditional_detr_names() -> Names:
    """Detrex' Conditional DETR."""
    pairs = [
        *_DETREX_CONDITIONAL,
        ("query_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
        ("transformer.decoder.ref_point_head.", f"{_SOURCE}reference_points."),
    ]
    return Names(pairs, code="detrex's Conditional DETR")


def detrex_dab_detr_names() -> Names:
    """Detrex' DAB-DETR and DN-DETR."""
    pairs = [
        *_DETREX_CONDITIONAL,
        ("anchor_box_embed.weight", f"{_SOURCE}anchors.{PRIMARY}"),
        ("transformer.patterns.weight", f"{_SOURCE}patterns"),
        ("transformer.encoder.query_scale.", "transformer.encoder.position_scale."),
        ("transformer.decoder.ref_point_head.", f"{_PLACE}embed."),
        ("transformer.decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("denoising_generator.label_encoder.weight", "transformer.denoising.label_embed.weight"),
    ]
    aliases = [("transformer.decoder.bbox_embed.", "bbox_embed.")]
    return Names(pairs, aliases=aliases, code="detrex's DAB-DETR or DN-DETR")


def transformers_detr_names() -> Names:
    """Transformers' DETR."""
    attentions = {"self_attn.": "self_attn.", "encoder_attn.": "cross_attn."}
    return Names([*_T_DETR, *_layer(_T_DECODER, attentions)], code="transformers' DETR")


def transformers_conditional_detr_names() -> Names:
    """Transformers' Conditional DETR."""
    parts = {f"sa_{theirs}.": f"self_attn.{ours}." for theirs, ours in _T_PARTS.items()}
    parts |= {f"ca_{theirs}.": f"cross_attn.{ours}." for theirs, ours in _T_PARTS.items()}
    parts |= {
        "ca_qpos_sine_proj.": "cross_attn.query_spatial.",
        "self_attn.out_proj.": "self_attn.out.",
        "encoder_attn.out_proj.": "cross_attn.out.",
    }
    pairs = [
        *_T_DETR,
        *_layer(_T_DECODER, parts),
        ("model.decoder.query_scale.", f"{_PLACE}scale."),
        ("model.decoder.ref_point_head.", f"{_SOURCE}reference_points."),
    ]
    return Names(pairs, code="transformers' Conditional DETR")


def transformers_dab_detr_names() -> Names:
    """Transformers' DAB-DETR."""
    parts = {}
    for attention in ("self_attn", "cross_attn"):
        prefix = f"{attention}.{attention}"
        for kind in ("query", "key"):
            parts[f"{prefix}_{kind}_content_proj."] = f"{attention}.{kind}_content."
            parts[f"{prefix}_{kind}_pos_proj."] = f"{attention}.{kind}_position."
        parts[f"{prefix}_value_proj."] = f"{attention}.value."
        parts[f"{prefix}_layer_norm."] = f"{attention}_norm."
        parts[f"{prefix}.output_proj."] = f"{attention}.out."
    parts |= {
        "cross_attn.cross_attn_query_pos_sine_proj.": "cross_attn.query_spatial.",
        "mlp.fc": "ffn.linear",
        "fc": "ffn.linear",  # what the names of memory were turned into
        "mlp.activation_fn.": "ffn.activation.",
        "mlp.final_layer_norm.": "ffn_norm.",
    }
    pairs = [
        *prefixed(RESNET, f"{TRANSFORMERS_BODY}_backbone.", "backbone."),
        *_T_ALL,
        *_layer(_T_DECODER, parts),
        ("model.query_refpoint_embeddings.weight", f"{_SOURCE}anchors.{PRIMARY}"),
        ("model.patterns.weight", f"{_SOURCE}patterns"),
        ("model.encoder.query_scale.", "transformer.encoder.position_scale."),
        ("model.decoder.query_scale.", f"{_PLACE}scale."),
        ("model.decoder.ref_point_head.", f"{_PLACE}embed."),
        ("model.decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("class_embed.", f"{_HEADS}class_embed.0."),
    ]
    return Names(pairs, aliases=[("model.decoder.bbox_embed.", "bbox_predictor.")], code="transformers' DAB-DETR")


def model_of_ours(state: State) -> str | None:
    """Which of these models a state dict with our names is, by what other projects call it; None for others."""
    if "transformer.decoder.layers.0.self_attn.query_content.weight" in state:
        return "dab_detr" if any(key.startswith(f"{_SOURCE}anchors.") for key in state) else "conditional_detr"
    return "detr" if queries_have_no_place(state) else None


def model_of_detrex(state: State) -> str | None:
    """Which of these models a state dict with detrex's names is; None for others, such as Deformable DETR."""
    if "transformer.decoder.layers.0.attentions.0.query_content_proj.weight" in state:
        return "dab_detr" if "anchor_box_embed.weight" in state else "conditional_detr"
    is_detr = "query_embed.weight" in state and "transformer.decoder.post_norm_layer.weight" in state
    return "detr" if is_detr else None


def model_of_transformers(state: State) -> str | None:
    """Which of these models a state dict with transformers' names is; None for others, such as Deformable DETR."""
    if "model.query_refpoint_embeddings.weight" in state:
        return "dab_detr"
    if "class_labels_classifier.weight" not in state:
        return None
    return "conditional_detr" if "model.decoder.ref_point_head.layers.0.weight" in state else "detr"


def _read_transformers(state: State, num_queries: int) -> dict[str, Tensor]:
    del num_queries
    renamed = {}
    for key, value in state.items():
        name = _MEMORY.to_ours(key) or key
        if f"{name.rpartition('.v_proj.')[0]}.q_content_proj.weight" in state:
            # The value projection of an attention whose other projections have names of their own.
            name = name.replace("self_attn.v_proj", "sa_v_proj").replace("encoder_attn.v_proj", "ca_v_proj")
        renamed[name] = value
    return filed(renamed, _MEMORY)


def _transformers(names: Names, scoring: Scoring | None = None) -> Code:
    return Code(names=fixed(names), scoring=scoring, prepare=_read_transformers, finish=split_projections)


_SOFTMAX = Scoring(no_object=True)
AUTHORS = {
    "detr": Code(names=fixed(detr_names()), scoring=_SOFTMAX),
    "conditional_detr": Code(names=fixed(conditional_detr_names())),
    "dab_detr": Code(names=fixed(dab_detr_names())),
    "dn_detr": Code(names=fixed(dab_detr_names())),
}
DETREX = {
    "detr": Code(names=fixed(detrex_detr_names()), scoring=_SOFTMAX),
    "conditional_detr": Code(names=fixed(detrex_conditional_detr_names())),
    "dab_detr": Code(names=fixed(detrex_dab_detr_names())),
}
TRANSFORMERS = {
    "detr": _transformers(transformers_detr_names(), _SOFTMAX),
    "conditional_detr": _transformers(transformers_conditional_detr_names()),
    "dab_detr": _transformers(transformers_dab_detr_names()),
}

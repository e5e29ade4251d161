"""Names of transformers' DETR, Conditional DETR and DAB-DETR for object detection, to and from ours.

What a state dict of transformers does not say by its names: its DAB-DETR bounds the logits of references at 1e-5, the
authors' at 1e-3. Files keep the names of version 4, whatever version wrote them; in memory version 5 has others. Both
are read.
"""

from collections.abc import Mapping

from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from .backbones import RESNET, Pairs, prefixed
from .family import Names
from .renaming import KeyTable
from .transformers import RESNET_TO_TIMM, join_projections, split_projections

_BODY = "model.backbone.conv_encoder.model."
_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_PLACE = "transformer.decoder.query_position."
_ENCODER, _DECODER = ((f"model.{part}.layers.*.", f"transformer.{part}.layers.*.") for part in ("encoder", "decoder"))
_CONDITIONAL = {
    "qcontent_proj": "query_content",
    "qpos_proj": "query_position",
    "kcontent_proj": "key_content",
    "kpos_proj": "key_position",
    "v_proj": "value",
}
_MEMORY_NAMES = KeyTable(
    [
        ("model.backbone.model.", _BODY),
        *((f"model.{part}.layers.*.mlp.fc", f"model.{part}.layers.*.fc") for part in ("encoder", "decoder")),
        *(
            (f"model.{layer}.o_proj.", f"model.{layer}.out_proj.")
            for layer in ("encoder.layers.*.self_attn", "decoder.layers.*.self_attn", "decoder.layers.*.encoder_attn")
        ),
        *(
            (f"{_DECODER[0]}{attention}.{name}.", f"{_DECODER[0]}{short}_{name.replace('_', '', 1)}.")
            for attention, short in (("self_attn", "sa"), ("encoder_attn", "ca"))
            for name in ("q_content_proj", "q_pos_proj", "k_content_proj", "k_pos_proj")
        ),
        (f"{_DECODER[0]}encoder_attn.q_pos_sine_proj.", f"{_DECODER[0]}ca_qpos_sine_proj."),
    ]
)


def _layer(pair: tuple[str, str], names: Mapping[str, str]) -> Pairs:
    """Names within a layer."""
    theirs, ours = pair
    return [(theirs + a, ours + b) for a, b in names.items()]


_ALL: Pairs = [
    *prefixed(RESNET, _BODY, "backbone."),
    ("model.input_projection.", "neck.levels.0.0."),
    *_layer(
        _ENCODER,
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
_DETR: Pairs = [
    *_ALL,
    *_layer(
        _DECODER,
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
    attentions = {"self_attn.": "self_attn.", "encoder_attn.": "cross_attn."}
    return Names([*_DETR, *_layer(_DECODER, attentions)], code="transformers' DETR")


def conditional_detr_names() -> Names:
    """Conditional DETR."""
    parts = {f"sa_{theirs}.": f"self_attn.{ours}." for theirs, ours in _CONDITIONAL.items()}
    parts |= {f"ca_{theirs}.": f"cross_attn.{ours}." for theirs, ours in _CONDITIONAL.items()}
    parts |= {
        "ca_qpos_sine_proj.": "cross_attn.query_spatial.",
        "self_attn.out_proj.": "self_attn.out.",
        "encoder_attn.out_proj.": "cross_attn.out.",
    }
    pairs = [
        *_DETR,
        *_layer(_DECODER, parts),
        ("model.decoder.query_scale.", f"{_PLACE}scale."),
        ("model.decoder.ref_point_head.", f"{_SOURCE}reference_points."),
    ]
    return Names(pairs, code="transformers' Conditional DETR")


def dab_detr_names() -> Names:
    """DAB-DETR."""
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
        *prefixed(RESNET, f"{_BODY}_backbone.", "backbone."),
        *_ALL,
        *_layer(_DECODER, parts),
        ("model.query_refpoint_embeddings.weight", f"{_SOURCE}anchors.{PRIMARY}"),
        ("model.patterns.weight", f"{_SOURCE}patterns"),
        ("model.encoder.query_scale.", "transformer.encoder.position_scale."),
        ("model.decoder.query_scale.", f"{_PLACE}scale."),
        ("model.decoder.ref_point_head.", f"{_PLACE}embed."),
        ("model.decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("class_embed.", f"{_HEADS}class_embed.0."),
    ]
    return Names(pairs, aliases=[("model.decoder.bbox_embed.", "bbox_predictor.")], code="transformers' DAB-DETR")


def model_of(state: Mapping[str, Tensor]) -> str | None:
    """Which of these models a state dict with transformers' names is; None for others, such as Deformable DETR."""
    if "model.query_refpoint_embeddings.weight" in state:
        return "dab_detr"
    if "class_labels_classifier.weight" not in state:
        return None
    return "conditional_detr" if "model.decoder.ref_point_head.layers.0.weight" in state else "detr"


def filed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of a file, with a ResNet of timm and joined projections, from those of a file or of memory."""
    renamed = {}
    for key, value in state.items():
        name = _MEMORY_NAMES.to_ours(key) or key
        if f"{name.rpartition('.v_proj.')[0]}.q_content_proj.weight" in state:
            # The value projection of an attention whose other projections have names of their own.
            name = name.replace("self_attn.v_proj", "sa_v_proj").replace("encoder_attn.v_proj", "ca_v_proj")
        renamed[RESNET_TO_TIMM.to_ours(name) or name] = value
    return join_projections(renamed)


def split(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``filed`` but for the ResNet, which stays timm's."""
    return split_projections(state)

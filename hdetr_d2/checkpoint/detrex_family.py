"""Names of detrex's DETR, Conditional, DAB-, DN-DETR and DINO, to and from ours.

What a state dict of detrex does not say by its names: its DINO has heads of its own in each decoder layer
(``heads.shared=False``), a label table without a row for unknown classes, and image positions of temperature 10000
with offset -0.5. It bounds the logits of references at 1e-3, and in evaluation it does not mask padding.
"""

from collections.abc import Mapping

from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from .backbones import RESNET, Pairs, prefixed, swapped
from .family import Names, neck_pairs

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_PLACE = "transformer.decoder.query_position."
_ENCODER, _DECODER = (f"transformer.{part}.layers.*." for part in ("encoder", "decoder"))
_LAYERS: Pairs = [
    *prefixed(swapped(RESNET), "backbone.", "backbone."),
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
_DENSE: Pairs = [
    *_LAYERS,
    ("input_proj.", "neck.levels.0.0."),
    (f"{_ENCODER}attentions.0.attn.", f"{_ENCODER}self_attn."),
    ("transformer.decoder.post_norm_layer.", "transformer.decoder.norm."),
    ("class_embed.", f"{_HEADS}class_embed.0."),
    ("bbox_embed.", f"{_HEADS}bbox_embed.0."),
]
_PARTS = {
    "query_content_proj": "query_content",
    "query_pos_proj": "query_position",
    "query_pos_sine_proj": "query_spatial",
    "key_content_proj": "key_content",
    "key_pos_proj": "key_position",
    "value_proj": "value",
    "out_proj": "out",
}
_CONDITIONAL: Pairs = [
    *_DENSE,
    *(
        (f"{_DECODER}attentions.{index}.{theirs}.", f"{_DECODER}{attention}.{ours}.")
        for index, attention in enumerate(("self_attn", "cross_attn"))
        for theirs, ours in _PARTS.items()
    ),
    ("transformer.decoder.query_scale.", f"{_PLACE}scale."),
]


def detr_names() -> Names:
    """DETR."""
    pairs = [
        *_DENSE,
        (f"{_DECODER}attentions.0.attn.", f"{_DECODER}self_attn."),
        (f"{_DECODER}attentions.1.attn.", f"{_DECODER}cross_attn."),
        ("query_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
    ]
    return Names(pairs, code="detrex's DETR")


def conditional_detr_names() -> Names:
    """Conditional DETR."""
    pairs = [
        *_CONDITIONAL,
        ("query_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
        ("transformer.decoder.ref_point_head.", f"{_SOURCE}reference_points."),
    ]
    return Names(pairs, code="detrex's Conditional DETR")


def dab_detr_names() -> Names:
    """DAB-DETR and DN-DETR."""
    pairs = [
        *_CONDITIONAL,
        ("anchor_box_embed.weight", f"{_SOURCE}anchors.{PRIMARY}"),
        ("transformer.patterns.weight", f"{_SOURCE}patterns"),
        ("transformer.encoder.query_scale.", "transformer.encoder.position_scale."),
        ("transformer.decoder.ref_point_head.", f"{_PLACE}embed."),
        ("transformer.decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("denoising_generator.label_encoder.weight", "transformer.denoising.label_embed.weight"),
    ]
    aliases = [("transformer.decoder.bbox_embed.", "bbox_embed.")]
    return Names(pairs, aliases=aliases, code="detrex's DAB-DETR or DN-DETR")


def dino_names(num_layers: int, num_convs: int = 3) -> Names:
    """DINO.

    Args:
        num_layers: decoder layers.
        num_convs: feature levels from the backbone; further ones are in a list of their own.
    """
    pairs = [
        *_LAYERS,
        *neck_pairs(num_convs),
        ("transformer.level_embeds", "transformer.level_embed"),
        (f"{_ENCODER}attentions.0.", f"{_ENCODER}self_attn."),
        (f"{_DECODER}attentions.0.attn.", f"{_DECODER}self_attn."),
        (f"{_DECODER}attentions.1.", f"{_DECODER}cross_attn."),
        ("transformer.decoder.norm.", "transformer.decoder.norm."),
        ("transformer.decoder.ref_point_head.", f"{_PLACE}embed."),
        ("transformer.enc_output.", f"{_SOURCE}enc_output."),
        ("transformer.enc_output_norm.", f"{_SOURCE}enc_output_norm."),
        ("transformer.tgt_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
        ("label_enc.weight", "transformer.denoising.label_embed.weight"),
    ]
    aliases = []
    for head in ("class_embed", "bbox_embed"):
        pairs += [
            (f"{head}.{num_layers}.", f"{_HEADS}encoder_{head}."),
            (f"{head}.*.", f"{_HEADS}{head}.*."),
        ]
        aliases.append((f"transformer.decoder.{head}.", f"{head}."))
    return Names(pairs, aliases=aliases, code="detrex's DINO")


def model_of(state: Mapping[str, Tensor]) -> str | None:
    """Which of these models a state dict with detrex's names is; None for others, such as Deformable DETR."""
    if "transformer.decoder.layers.0.attentions.0.query_content_proj.weight" in state:
        return "dab_detr" if "anchor_box_embed.weight" in state else "conditional_detr"
    if "query_embed.weight" in state and "transformer.decoder.post_norm_layer.weight" in state:
        return "detr"
    two_stage = "transformer.enc_output.weight" in state
    return "dino" if two_stage and "transformer.decoder.ref_point_head.layers.0.weight" in state else None

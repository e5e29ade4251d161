"""Names of MS-DETR and Mr. DETR in the authors' code.

Sources: Atten4Vis/MS-DETR, on two-stage Deformable DETR, and Visual-AI/Mr.DETR, on detrex.
"""

from hdetr_d2.supervision import PRIMARY

from ..renaming import Code, Names, Pairs, State, count_decoder_layers, prefixed
from .backbones import DETECTRON2_RESNET
from .deformable_detr import AUTHORS as DEFORMABLE_DETR
from .deformable_detr import count_convs, neck_pairs
from .dino import HEADS_OF_DECODER, slots_with_encoder

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_ENCODER, _DECODER = (f"transformer.{part}.layers.*." for part in ("encoder", "decoder"))

_MS: Pairs = [
    *(pair for pair in DEFORMABLE_DETR if not pair[0].startswith(f"{_DECODER}norm")),
    # numbered in the order of their use
    (f"{_DECODER}norm1.", f"{_DECODER}cross_attn_norm."),
    (f"{_DECODER}norm2.", f"{_DECODER}self_attn_norm."),
    (f"{_DECODER}norm3.", f"{_DECODER}ffn_norm."),
    (f"{_DECODER}linear3.", f"{_DECODER}tap.linear1."),
    (f"{_DECODER}linear4.", f"{_DECODER}tap.linear2."),
    (f"{_DECODER}norm4.", f"{_DECODER}tap_norm."),
    ("query_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
]
_MR: Pairs = [
    *prefixed(DETECTRON2_RESNET, "backbone.", "backbone."),
    ("transformer.level_embeds", "transformer.level_embed"),
    (f"{_ENCODER}attentions.0.", f"{_ENCODER}self_attn."),
    (f"{_ENCODER}norms.0.", f"{_ENCODER}self_attn_norm."),
    (f"{_ENCODER}norms.1.", f"{_ENCODER}ffn_norm."),
    (f"{_ENCODER}ffns.0.layers.0.0.", f"{_ENCODER}ffn.linear1."),
    (f"{_ENCODER}ffns.0.layers.1.", f"{_ENCODER}ffn.linear2."),
    (f"{_DECODER}attentions.0.attn.", f"{_DECODER}self_attn."),
    (f"{_DECODER}attentions.0.norm_o2o.", f"{_DECODER}self_attn_norm."),
    (f"{_DECODER}attentions.0.norm_o2m.", f"{_DECODER}routes.instructed.self_attn_norm."),
    (f"{_DECODER}attentions.0.instruction_o2m.weight", f"{_DECODER}routes.instructed.instruction_content"),
    (f"{_DECODER}attentions.0.instruction_o2m_pos.weight", f"{_DECODER}routes.instructed.instruction_position"),
    (f"{_DECODER}attentions.1.", f"{_DECODER}cross_attn."),
    (f"{_DECODER}norms.0.", f"{_DECODER}cross_attn_norm."),
    (f"{_DECODER}norms.1.", f"{_DECODER}ffn_norm."),
    (f"{_DECODER}ffns.0.layers.0.linear.linear.", f"{_DECODER}ffn.linear1."),
    (f"{_DECODER}ffns.0.layers.0.linear.linear_sep.", f"{_DECODER}routes.own_ffn.ffn.linear1."),
    (f"{_DECODER}ffns.0.layers.1.linear.", f"{_DECODER}ffn.linear2."),
    (f"{_DECODER}ffns.0.layers.1.linear_sep.", f"{_DECODER}routes.own_ffn.ffn.linear2."),
    *((f"transformer.{name}.", f"{_SOURCE}{name}.") for name in ("enc_output", "pos_trans")),
    *((f"transformer.{name}_norm.", f"{_SOURCE}{name}_norm.") for name in ("enc_output", "pos_trans")),
    ("transformer.decoder.class_embed_o2m_encoder.", f"{_HEADS}group_class_embed.instructed."),
    ("transformer.decoder.bbox_embed_enc_o2m.", f"{_HEADS}group_bbox_embed.instructed."),
    ("query_embedding.weight", f"{_SOURCE}content.{PRIMARY}"),
    ("label_enc.weight", "transformer.denoising.label_embed.weight"),
]


def ms_detr_names(num_layers: int) -> Names:
    """MS-DETR."""
    return Names([*slots_with_encoder(num_layers), *_MS], aliases=HEADS_OF_DECODER, code="MS-DETR")


def mr_detr_names(num_layers: int, num_convs: int = 3) -> Names:
    """Mr. DETR.

    Args:
        num_layers: decoder layers.
        num_convs: feature levels that are convolved 1 x 1; further ones are in a list of their own.
    """
    pairs = [*slots_with_encoder(num_layers), *neck_pairs(num_convs), *_MR]
    return Names(pairs, aliases=HEADS_OF_DECODER, code="Mr. DETR")


def _ms(state: State) -> Names:
    return ms_detr_names(count_decoder_layers(state))


def _mr(state: State) -> Names:
    return mr_detr_names(count_decoder_layers(state), count_convs(state))


AUTHORS = {"ms_detr": Code(names=_ms), "mr_detr": Code(names=_mr)}

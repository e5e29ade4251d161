"""Names of DINO and of other models on Deformable DETR, by their authors and in detrex.

Sources: IDEA-Research/DINO, DAB-DETR (DAB-Deformable-DETR), DN-DETR (DN-Deformable-DETR), Atten4Vis/MS-DETR,
Visual-AI/Mr.DETR and detrex. What a state dict of detrex does not say by its names: its DINO has heads of its own in
each decoder layer (``heads.shared=False``), a label table without a row for unknown classes, and image positions of
temperature 10000 with offset -0.5. It bounds the logits of references at 1e-3, and in evaluation it does not mask
padding.
"""

from hdetr_d2.supervision import PRIMARY

from ..class_heads import Scoring
from ..renaming import Code, Names, Pairs, State, count_decoder_layers, fixed, prefixed
from .backbones import DETECTRON2_RESNET
from .deformable_detr import AUTHORS as DEFORMABLE_DETR
from .deformable_detr import DETREX_LAYERS, count_convs, neck_pairs
from .detr import ANCHORS

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_ENCODER, _DECODER = (f"transformer.{part}.layers.*." for part in ("encoder", "decoder"))

_DEFORMABLE: Pairs = [
    *DEFORMABLE_DETR,
    *ANCHORS,
    ("tgt_embed.weight", f"{_SOURCE}embed.{PRIMARY}"),
    ("class_embed.*.", f"{_HEADS}class_embed.*."),
    ("bbox_embed.*.", f"{_HEADS}bbox_embed.*."),
]
_DINO: Pairs = [
    *DEFORMABLE_DETR,
    *ANCHORS,
    ("class_embed.0.", f"{_HEADS}class_embed.0."),
    ("bbox_embed.0.", f"{_HEADS}bbox_embed.0."),
    ("transformer.decoder.norm.", "transformer.decoder.norm."),
    ("transformer.tgt_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
    ("transformer.enc_out_class_embed.", f"{_HEADS}encoder_class_embed."),
    ("transformer.enc_out_bbox_embed.", f"{_HEADS}encoder_bbox_embed."),
]
_DETREX_DINO: Pairs = [
    *DETREX_LAYERS,
    ("transformer.level_embeds", "transformer.level_embed"),
    (f"{_ENCODER}attentions.0.", f"{_ENCODER}self_attn."),
    (f"{_DECODER}attentions.0.attn.", f"{_DECODER}self_attn."),
    (f"{_DECODER}attentions.1.", f"{_DECODER}cross_attn."),
    ("transformer.decoder.norm.", "transformer.decoder.norm."),
    ("transformer.decoder.ref_point_head.", "transformer.decoder.query_position.embed."),
    ("transformer.enc_output.", f"{_SOURCE}enc_output."),
    ("transformer.enc_output_norm.", f"{_SOURCE}enc_output_norm."),
    ("transformer.tgt_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
    ("label_enc.weight", "transformer.denoising.label_embed.weight"),
]
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
_BOX_ALIAS = [("transformer.decoder.bbox_embed.", "bbox_embed.")]
_HEADS_OF_DECODER = [(f"transformer.decoder.{head}.", f"{head}.") for head in ("class_embed", "bbox_embed")]
"""Aliases of codes whose decoder holds the list of heads, too."""


def dab_deformable_detr_names() -> Names:
    """DAB-Deformable-DETR and DN-Deformable-DETR."""
    return Names(_DEFORMABLE, aliases=_BOX_ALIAS, code="DAB-Deformable-DETR or DN-Deformable-DETR")


def dino_names(num_layers: int) -> Names:
    """DINO, whose decoder layers share one pair of heads."""
    aliases = []
    for head in ("class_embed", "bbox_embed"):
        aliases += [(f"{head}.{layer}.", f"{head}.0.") for layer in range(1, num_layers)]
        aliases += [(f"transformer.decoder.{head}.{layer}.", f"{head}.0.") for layer in range(num_layers)]
    return Names(_DINO, aliases=aliases, code="DINO")


def detrex_dino_names(num_layers: int, num_convs: int = 3) -> Names:
    """Detrex' DINO.

    Args:
        num_layers: decoder layers.
        num_convs: feature levels from the backbone; further ones are in a list of their own.
    """
    pairs = [*_DETREX_DINO, *neck_pairs(num_convs), *_slots_with_encoder(num_layers)]
    return Names(pairs, aliases=_HEADS_OF_DECODER, code="detrex's DINO")


def ms_detr_names(num_layers: int) -> Names:
    """MS-DETR."""
    return Names([*_slots_with_encoder(num_layers), *_MS], aliases=_HEADS_OF_DECODER, code="MS-DETR")


def mr_detr_names(num_layers: int, num_convs: int = 3) -> Names:
    """Mr. DETR.

    Args:
        num_layers: decoder layers.
        num_convs: feature levels that are convolved 1 x 1; further ones are in a list of their own.
    """
    pairs = [*_slots_with_encoder(num_layers), *neck_pairs(num_convs), *_MR]
    return Names(pairs, aliases=_HEADS_OF_DECODER, code="Mr. DETR")


def _slots_with_encoder(num_layers: int) -> Pairs:
    """A list of heads in which the encoder's pair comes after those of the decoder's layers."""
    heads = ("class_embed", "bbox_embed")
    encoder = [(f"{head}.{num_layers}.", f"{_HEADS}encoder_{head}.") for head in heads]
    return [*encoder, *((f"{head}.*.", f"{_HEADS}{head}.*.") for head in heads)]


def model_of_ours(state: State) -> str | None:
    """``dino`` where a state dict with our names is one; None for others."""
    place = "transformer.decoder.query_position.embed.layers.0.weight"
    return "dino" if place in state and f"{_SOURCE}enc_output.weight" in state else None


def model_of_detrex(state: State) -> str | None:
    """``dino`` where a state dict with detrex's names is one; None for others."""
    two_stage = "transformer.enc_output.weight" in state
    return "dino" if two_stage and "transformer.decoder.ref_point_head.layers.0.weight" in state else None


def _dino(state: State) -> Names:
    return dino_names(count_decoder_layers(state))


def _detrex_dino(state: State) -> Names:
    return detrex_dino_names(count_decoder_layers(state), count_convs(state))


def _ms(state: State) -> Names:
    return ms_detr_names(count_decoder_layers(state))


def _mr(state: State) -> Names:
    return mr_detr_names(count_decoder_layers(state), count_convs(state))


AUTHORS = {
    "dab_deformable_detr": Code(names=fixed(dab_deformable_detr_names())),
    "dn_deformable_detr": Code(names=fixed(dab_deformable_detr_names())),
    "dino": Code(names=_dino, scoring=Scoring()),
    "ms_detr": Code(names=_ms),
    "mr_detr": Code(names=_mr),
}
DETREX = {"dino": Code(names=_detrex_dino, scoring=Scoring())}

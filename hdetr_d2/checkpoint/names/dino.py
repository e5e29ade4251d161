"""Names of DINO in the authors' code and in detrex, and of DAB- and DN-Deformable-DETR in the authors'.

Sources: IDEA-Research/DINO, DAB-DETR, DN-DETR and detrex. What a state dict of detrex does not say by its names: its
DINO has heads of its own in each decoder layer (``heads.shared=False``), a label table without a row for unknown
classes, and image positions of temperature 10000 with offset -0.5. It bounds the logits of references at 1e-3, and in
evaluation it does not mask padding.
"""

from hdetr_d2.supervision import PRIMARY

from ..class_heads import Scoring
from ..renaming import Code, Names, Pairs, State, count_decoder_layers, fixed
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
_BOX_ALIAS = [("transformer.decoder.bbox_embed.", "bbox_embed.")]


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
    pairs = [*_DETREX_DINO, *neck_pairs(num_convs), *slots_with_encoder(num_layers)]
    return Names(pairs, aliases=HEADS_OF_DECODER, code="detrex's DINO")


HEADS_OF_DECODER = [(f"transformer.decoder.{head}.", f"{head}.") for head in ("class_embed", "bbox_embed")]
"""Aliases of codes whose decoder holds the list of heads, too."""


def slots_with_encoder(num_layers: int) -> Pairs:
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


AUTHORS = {
    "dab_deformable_detr": Code(names=fixed(dab_deformable_detr_names())),
    "dn_deformable_detr": Code(names=fixed(dab_deformable_detr_names())),
    "dino": Code(names=_dino, scoring=Scoring()),
}
DETREX = {"dino": Code(names=_detrex_dino, scoring=Scoring())}

"""Names of Relation-DETR in the authors' code."""

from hdetr_d2.supervision import PRIMARY, HybridBranch

from ..class_heads import Scoring
from ..renaming import Code, Names, Pairs, State, fixed, prefixed
from .backbones import RESNET

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_GROUP = HybridBranch.group

_PAIRS: Pairs = [
    *prefixed(RESNET, "backbone.", "backbone."),
    ("neck.convs.", "neck.levels."),
    ("transformer.level_embeds", "transformer.level_embed"),
    ("transformer.enc_output.", f"{_SOURCE}enc_output."),
    ("transformer.enc_output_norm.", f"{_SOURCE}enc_output_norm."),
    ("transformer.encoder.memory_fusion.", "transformer.encoder.fusion."),
    *(
        (f"transformer.encoder.layers.*.{theirs}", f"transformer.encoder.layers.*.{ours}")
        for theirs, ours in (
            ("self_attn.", "self_attn."),
            ("norm1.", "self_attn_norm."),
            ("linear", "ffn.linear"),
            ("norm2.", "ffn_norm."),
        )
    ),
    *(
        (f"transformer.decoder.layers.*.{theirs}", f"transformer.decoder.layers.*.{ours}")
        for theirs, ours in (
            ("cross_attn.", "cross_attn."),
            ("norm1.", "cross_attn_norm."),
            ("self_attn.", "self_attn."),
            ("norm2.", "self_attn_norm."),
            ("linear", "ffn.linear"),
            ("norm3.", "ffn_norm."),
        )
    ),
    ("transformer.decoder.norm.", "transformer.decoder.norm."),
    ("transformer.decoder.ref_point_head.", "transformer.decoder.query_position.embed."),
    ("transformer.decoder.query_scale.", "transformer.decoder.query_position.scale."),
    ("transformer.decoder.position_relation_embedding.pos_proj.0.", "transformer.decoder.relation.projection."),
    ("transformer.decoder.class_head.*.", f"{_HEADS}class_embed.*."),
    ("transformer.decoder.bbox_head.*.", f"{_HEADS}bbox_embed.*."),
    ("transformer.encoder_class_head.", f"{_HEADS}encoder_class_embed."),
    ("transformer.encoder_bbox_head.", f"{_HEADS}encoder_bbox_embed."),
    ("transformer.hybrid_class_head.", f"{_HEADS}group_class_embed.{_GROUP}."),
    ("transformer.hybrid_bbox_head.", f"{_HEADS}group_bbox_embed.{_GROUP}."),
    ("transformer.tgt_embed.weight", f"{_SOURCE}content.{PRIMARY}"),
    ("transformer.hybrid_tgt_embed.weight", f"{_SOURCE}content.{_GROUP}"),
    ("denoising_generator.label_encoder.weight", "transformer.denoising.label_embed.weight"),
]

NAMES = Names(_PAIRS, ignored=("_classes_",), code="Relation-DETR")


def is_relation_detr(state: State) -> bool:
    """Whether a state dict has our names of a Relation-DETR."""
    return "transformer.decoder.relation.projection.weight" in state


CODES = {"relation_detr": Code(names=fixed(NAMES), scoring=Scoring())}
"""By the project's name."""

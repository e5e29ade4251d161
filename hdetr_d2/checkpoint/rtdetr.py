"""Names of the authors' RT-DETR, RT-DETRv2 and DEIM code (on RT-DETRv2), to and from ours."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from .backbones import Pairs
from .class_rows import choose_classes
from .family import Names

_HYBRID = "neck.necks.0."
_PROJECTION = "neck.necks.1.levels.*."
_SOURCE = "transformer.query_source."
_LABELS = "transformer.denoising.label_embed.weight"

# The number of a stage is one more in timm's names, and the first one has no pooling before its shortcut.
_BACKBONE: Pairs = [
    *(
        pair
        for index, place in enumerate((0, 3, 6))
        for pair in (
            (f"backbone.conv1.conv1_{index + 1}.conv.", f"backbone.body.conv1.{place}."),
            (
                f"backbone.conv1.conv1_{index + 1}.norm.",
                f"backbone.body.conv1.{place + 1}." if index < 2 else "backbone.body.bn1.",
            ),
        )
    ),
    *(
        pair
        for stage in range(4)
        for pair in (
            *(
                (f"backbone.res_layers.{stage}.blocks.*.branch2{letter}.{theirs}.", f"{ours}{index + 1}.")
                for index, letter in enumerate("abc")
                for theirs, ours in (
                    ("conv", f"backbone.body.layer{stage + 1}.*.conv"),
                    ("norm", f"backbone.body.layer{stage + 1}.*.bn"),
                )
            ),
            *(
                (
                    f"backbone.res_layers.{stage}.blocks.*.short.{'conv.' if stage else ''}{theirs}.",
                    f"backbone.body.layer{stage + 1}.*.downsample.{ours}.",
                )
                for theirs, ours in (("conv", 1), ("norm", 2))
            ),
        )
    ),
]

# HGNetv2
_BACKBONE += [
    ("backbone.stem.", "backbone.body.stem."),
    *((f"backbone.stem.stem2{part}.conv.1.", f"backbone.body.stem.stem2{part}.conv.") for part in "ab"),
    ("backbone.stages.*.", "backbone.body.stages_*."),
    *(
        (
            f"backbone.stages.*.blocks.*.aggregation_{name}_conv.",
            f"backbone.body.stages_*.blocks.*.aggregation.{index}.",
        )
        for index, name in enumerate(("squeeze", "excitation"))
    ),
]

_FUSION: Pairs = [
    pair
    for theirs, ours in (("fpn_blocks.*.", "top_down.*."), ("pan_blocks.*.", "bottom_up.*."))
    for pair in (
        *(
            (f"encoder.{theirs}{number}.", f"{_HYBRID}{ours}{name}.")
            for number, name in (("conv1", "main"), ("conv2", "side"), ("conv3", "output"))
        ),
        (f"encoder.{theirs}bottlenecks.*.conv1.", f"{_HYBRID}{ours}blocks.*.branches.0."),
        (f"encoder.{theirs}bottlenecks.*.conv2.", f"{_HYBRID}{ours}blocks.*.branches.1."),
    )
]

_COMMON: Pairs = [
    *_BACKBONE,
    *_FUSION,
    ("encoder.lateral_convs.*.", f"{_HYBRID}laterals.*."),
    ("encoder.downsample_convs.*.", f"{_HYBRID}downsamples.*."),
    *(
        (f"encoder.encoder.{index}.layers.*.{theirs}", f"{_HYBRID}{encoder}.layers.*.{ours}")
        for index, encoder in enumerate(("encoder", *(f"further_encoders.{further}" for further in range(3))))
        for theirs, ours in (
            ("self_attn.", "self_attn."),
            ("norm1.", "self_attn_norm."),
            ("linear", "ffn.linear"),
            ("norm2.", "ffn_norm."),
        )
    ),
    ("decoder.input_proj.*.conv.", f"{_PROJECTION}0."),
    ("decoder.input_proj.*.norm.", f"{_PROJECTION}1."),
    ("decoder.decoder.layers.*.self_attn.", "transformer.decoder.layers.*.self_attn."),
    ("decoder.decoder.layers.*.norm1.", "transformer.decoder.layers.*.self_attn_norm."),
    ("decoder.decoder.layers.*.cross_attn.", "transformer.decoder.layers.*.cross_attn."),
    ("decoder.decoder.layers.*.norm2.", "transformer.decoder.layers.*.cross_attn_norm."),
    ("decoder.decoder.layers.*.linear", "transformer.decoder.layers.*.ffn.linear"),
    ("decoder.decoder.layers.*.norm3.", "transformer.decoder.layers.*.ffn_norm."),
    ("decoder.query_pos_head.", "transformer.decoder.query_position.embed."),
    ("decoder.denoising_class_embed.weight", _LABELS),
    ("decoder.tgt_embed.weight", f"{_SOURCE}content.{PRIMARY}"),  # learn_query_content
    ("decoder.enc_score_head.", "transformer.heads.encoder_class_embed."),
    ("decoder.enc_bbox_head.", "transformer.heads.encoder_bbox_embed."),
    ("decoder.dec_score_head.*.", "transformer.heads.class_embed.*."),
    ("decoder.dec_bbox_head.*.", "transformer.heads.bbox_embed.*."),
]

_OF_VERSION: Mapping[int, Pairs] = {
    1: [
        ("encoder.input_proj.*.0.", f"{_HYBRID}input_proj.*.conv."),
        ("encoder.input_proj.*.1.", f"{_HYBRID}input_proj.*.norm."),
        ("decoder.enc_output.0.", f"{_SOURCE}enc_output."),
        ("decoder.enc_output.1.", f"{_SOURCE}enc_output_norm."),
    ],
    2: [
        ("encoder.input_proj.*.", f"{_HYBRID}input_proj.*."),
        ("decoder.enc_output.proj.", f"{_SOURCE}enc_output."),
        ("decoder.enc_output.norm.", f"{_SOURCE}enc_output_norm."),
    ],
}

# Tables that follow from shapes, which a model may keep as buffers.
_TABLES = re.compile(r"decoder\.(anchors|valid_mask)$|.*\.num_points_scale$|encoder\.pos_embed\d+$")
# A RepVGG block after re-parameterisation; the code of RT-DETR keeps what it was made of beside it.
_FUSED = re.compile(r"(.*\.bottlenecks\.\d+)\.conv\.(weight|bias)$")


def rtdetr_names(version: int) -> Names:
    """Names of RT-DETR (version 1), or of RT-DETRv2 and of DEIM on it (version 2)."""
    return Names([*_COMMON, *_OF_VERSION[version]], code=f"RT-DETR, version {version}")


def from_rtdetr(
    state: Mapping[str, Tensor], *, num_queries: int = 300, classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename a state dict of the authors' RT-DETR, RT-DETRv2 or DEIM code, on ResNet-vd or HGNetv2.

    A re-parameterised one fits a model that ``modeling.deploy.deploy`` has changed likewise.

    Args:
        state: ``checkpoint["ema"]["module"]`` or ``checkpoint["model"]`` of theirs.
        num_queries: not read; queries are chosen tokens.
        classes: for each of our classes the row of their class heads and label table; None keeps all rows.

    Returns:
        Our names; tensors are shared with ``state`` where no rows were chosen.

    Raises:
        ValueError: for keys that are not theirs, naming them.
    """
    del num_queries
    undeployed: dict[str, Tensor] = {}
    for key, value in state.items():
        fused = _FUSED.match(key)
        if _TABLES.match(key) or (fused and f"{fused[1]}.conv1.conv.weight" in state):
            continue
        key = f"{fused[1]}.conv1.{fused[2]}" if fused else key
        undeployed[key.replace(".conv_bn_fused.", ".conv.")] = value
    renamed = rtdetr_names(1 if "encoder.input_proj.0.0.weight" in state else 2).to_ours(undeployed)
    return renamed if classes is None else choose_classes(renamed, classes, binary_encoder=False)


def to_rtdetr(state: Mapping[str, Tensor], *, version: int = 2) -> dict[str, Tensor]:
    """The inverse of ``from_rtdetr`` for a model that is not re-parameterised.

    Args:
        state: our names.
        version: as of ``rtdetr_names``.

    Raises:
        ValueError: for a re-parameterised model, and for keys that their code has no place for, naming them.
    """
    fused = [key for key in state if re.search(r"\.branches\.\d+\.(weight|bias)$", key)]
    if fused:
        raise ValueError(f"the model is re-parameterised ({fused[0]}); convert it as it was trained")
    return rtdetr_names(version).to_authors(state)


def is_rtdetr(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has our names of an RT-DETR."""
    return f"{_HYBRID}input_proj.0.conv.weight" in state

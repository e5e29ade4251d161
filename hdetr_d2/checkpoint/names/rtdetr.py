"""Names of RT-DETR, RT-DETRv2 and DEIM (on RT-DETRv2) in the authors' code, and of the first two in transformers.

The table of transformers goes through the authors' names of version 1. What its state dicts do not say by their names:

- Its backbone's BatchNorm is frozen unless ``freeze_backbone_batch_norms`` is off; the names are the same.
- Positions of the encoder are each cell's own, as ours; discrete sampling keeps columns within columns, as ours does.
- Files keep the names of version 4, whatever version wrote them; in memory version 5 has others. Both are read.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from ..class_heads import Scoring
from ..renaming import Code, KeyTable, Names, Pairs, State, is_derived, join_projections, split_projections

HYBRID = "neck.necks.0."
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
            (f"encoder.{theirs}{number}.", f"{HYBRID}{ours}{name}.")
            for number, name in (("conv1", "main"), ("conv2", "side"), ("conv3", "output"))
        ),
        (f"encoder.{theirs}bottlenecks.*.conv1.", f"{HYBRID}{ours}blocks.*.branches.0."),
        (f"encoder.{theirs}bottlenecks.*.conv2.", f"{HYBRID}{ours}blocks.*.branches.1."),
    )
]

COMMON: Pairs = [
    ("encoder.lateral_convs.*.", f"{HYBRID}laterals.*."),
    ("encoder.downsample_convs.*.", f"{HYBRID}downsamples.*."),
    *(
        (f"encoder.encoder.{index}.layers.*.{theirs}", f"{HYBRID}{encoder}.layers.*.{ours}")
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

OF_VERSION: Mapping[int, Pairs] = {
    1: [
        ("encoder.input_proj.*.0.", f"{HYBRID}input_proj.*.conv."),
        ("encoder.input_proj.*.1.", f"{HYBRID}input_proj.*.norm."),
        ("decoder.enc_output.0.", f"{_SOURCE}enc_output."),
        ("decoder.enc_output.1.", f"{_SOURCE}enc_output_norm."),
    ],
    2: [
        ("encoder.input_proj.*.", f"{HYBRID}input_proj.*."),
        ("decoder.enc_output.proj.", f"{_SOURCE}enc_output."),
        ("decoder.enc_output.norm.", f"{_SOURCE}enc_output_norm."),
    ],
}

# Tables that follow from shapes, which a model may keep as buffers.
_TABLES = re.compile(r"decoder\.(anchors|valid_mask)$|.*\.num_points_scale$|encoder\.pos_embed\d+$")
# A RepVGG block after re-parameterisation; the code of RT-DETR keeps what it was made of beside it.
_FUSED = re.compile(r"(.*\.bottlenecks\.\d+)\.conv\.(weight|bias)$")


_STEM = "model.backbone.model.embedder.embedder.{}.{}."
_BLOCK = "model.backbone.model.encoder.stages.{}.layers.*."
_OF_STAGE = "backbone.res_layers.{}.blocks.*."
_T_PARTS = (("convolution", "conv"), ("normalization", "norm"))

MEMORY: Pairs = [
    ("model.encoder.aifi.", "model.encoder.encoder."),
    *(
        pair
        for memory, filed in (
            ("model.encoder.aifi.*.layers.*.", "model.encoder.encoder.*.layers.*."),
            ("model.decoder.layers.*.", "model.decoder.layers.*."),
        )
        for pair in (
            (f"{memory}self_attn.o_proj.", f"{filed}self_attn.out_proj."),
            (f"{memory}mlp.fc", f"{filed}fc"),
        )
    ),
]

_T_BACKBONE: Pairs = [
    *(
        (_STEM.format(index, theirs), f"backbone.conv1.conv1_{index + 1}.{ours}.")
        for index in range(3)
        for theirs, ours in _T_PARTS
    ),
    *(
        pair
        for stage in range(4)
        for theirs, ours in _T_PARTS
        for pair in (
            # Where a stage halves the map, pooling is the first part of the shortcut.
            (
                f"{_BLOCK.format(stage)}shortcut.{'1.' if stage else ''}{theirs}.",
                f"{_OF_STAGE.format(stage)}short.{'conv.' if stage else ''}{ours}.",
            ),
            *(
                (f"{_BLOCK.format(stage)}layer.{i}.{theirs}.", f"{_OF_STAGE.format(stage)}branch2{letter}.{ours}.")
                for i, letter in enumerate("abc")
            ),
        )
    ),
]

T_COMMON: Pairs = [
    ("model.encoder_input_proj.", "encoder.input_proj."),
    ("model.encoder.encoder.*.layers.*.self_attn.", "encoder.encoder.*.layers.*.self_attn."),
    ("model.encoder.encoder.*.layers.*.self_attn_layer_norm.", "encoder.encoder.*.layers.*.norm1."),
    ("model.encoder.encoder.*.layers.*.fc", "encoder.encoder.*.layers.*.linear"),
    ("model.encoder.encoder.*.layers.*.final_layer_norm.", "encoder.encoder.*.layers.*.norm2."),
    *(
        (f"model.encoder.{part}.", f"encoder.{part}.")
        for part in ("lateral_convs", "fpn_blocks", "downsample_convs", "pan_blocks")
    ),
    ("model.decoder_input_proj.*.0.", "decoder.input_proj.*.conv."),
    ("model.decoder_input_proj.*.1.", "decoder.input_proj.*.norm."),
    ("model.denoising_class_embed.", "decoder.denoising_class_embed."),
    *((f"model.{part}.", f"decoder.{part}.") for part in ("enc_output", "enc_score_head", "enc_bbox_head")),
    ("model.decoder.query_pos_head.", "decoder.query_pos_head."),
    ("model.decoder.class_embed.", "decoder.dec_score_head."),
    ("model.decoder.bbox_embed.", "decoder.dec_bbox_head."),
    ("model.decoder.layers.*.self_attn.", "decoder.decoder.layers.*.self_attn."),
    ("model.decoder.layers.*.self_attn_layer_norm.", "decoder.decoder.layers.*.norm1."),
    ("model.decoder.layers.*.encoder_attn.", "decoder.decoder.layers.*.cross_attn."),
    ("model.decoder.layers.*.encoder_attn_layer_norm.", "decoder.decoder.layers.*.norm2."),
    ("model.decoder.layers.*.fc", "decoder.decoder.layers.*.linear"),
    ("model.decoder.layers.*.final_layer_norm.", "decoder.decoder.layers.*.norm3."),
]

_TRANSFORMERS_TO_AUTHORS = Names([*_T_BACKBONE, *T_COMMON], code="transformers' RTDetr or RTDetrV2")

_T_ALIASES = ("class_embed.", "bbox_embed.")
_T_TABLES = (".n_points_scale", ".num_points_scale", "model.anchors", "model.valid_mask")


def rtdetr_names(version: int) -> Names:
    """Names of RT-DETR (version 1), or of RT-DETRv2 and of DEIM on it (version 2)."""
    return Names([*_BACKBONE, *_FUSION, *COMMON, *OF_VERSION[version]], code=f"RT-DETR, version {version}")


def from_rtdetr(state: State) -> dict[str, Tensor]:
    """Our names for a state dict of the authors' RT-DETR, RT-DETRv2 or DEIM code, on ResNet-vd or HGNetv2.

    A re-parameterised one fits a model that ``modeling.deploy.deploy`` has changed likewise.

    Args:
        state: ``checkpoint["ema"]["module"]`` or ``checkpoint["model"]`` of theirs.

    Raises:
        ValueError: for keys that are not theirs, naming them.
    """
    return CODES["rtdetr"].to_ours(state)


def to_rtdetr(state: State, *, version: int = 2) -> dict[str, Tensor]:
    """The inverse of ``from_rtdetr`` for a model that is not re-parameterised.

    Args:
        state: our names.
        version: as of ``rtdetr_names``.

    Raises:
        ValueError: for a re-parameterised model, and for keys that their code has no place for, naming them.
    """
    return _of_trained(state, version).apply(state, to="theirs")


def is_rtdetr(state: State) -> bool:
    """Whether a state dict has our names of an RT-DETR."""
    return f"{HYBRID}input_proj.0.conv.weight" in state


def is_rtdetr_of_transformers(state: State) -> bool:
    """Whether a state dict has transformers' names of an RTDetr or RTDetrV2."""
    return "model.encoder_input_proj.0.0.weight" in state


def _of_trained(state: State, version: int) -> Names:
    """Names of a model that is not re-parameterised."""
    require_trained(state)
    return rtdetr_names(version)


def require_trained(state: State) -> None:
    """Refuse our state dict of a re-parameterised model.

    Raises:
        ValueError: it is one.
    """
    fused = [key for key in state if re.search(r"\.branches\.\d+\.(weight|bias)$", key)]
    if fused:
        raise ValueError(f"the model is re-parameterised ({fused[0]}); convert it as it was trained")


def _authors_names(state: State) -> Names:
    """Names of the version that a state dict of the authors is of; ours become version 2."""
    return _of_trained(state, 1 if "encoder.input_proj.0.0.weight" in state else 2)


def read_authors(state: State, num_queries: int) -> State:
    """Without tables, and with a re-parameterised block under the name of its first branch."""
    del num_queries
    undeployed: dict[str, Tensor] = {}
    for key, value in state.items():
        fused = _FUSED.match(key)
        if _TABLES.match(key) or (fused and f"{fused[1]}.conv1.conv.weight" in state):
            continue
        key = f"{fused[1]}.conv1.{fused[2]}" if fused else key
        undeployed[key.replace(".conv_bn_fused.", ".conv.")] = value
    return undeployed


def transformers_code(names: Callable[[State], Names], to_authors: Names, memory: Pairs) -> Code:
    """One of their models, by way of the authors' names.

    Args:
        names: the authors'.
        to_authors: from the names of files.
        memory: (names in memory, names of files) of prefixes that differ.
    """
    table = KeyTable(memory)

    def read(state: State, num_queries: int) -> State:
        del num_queries
        filed = {
            table.to_ours(key) or key: value
            for key, value in join_projections(state).items()
            if not (key.startswith(_T_ALIASES) or key.endswith(_T_TABLES))
        }
        return to_authors.apply(filed)

    def write(state: State) -> dict[str, Tensor]:
        learned = {key: value for key, value in state.items() if not is_derived(key)}
        return split_projections(to_authors.apply(learned, to="theirs"))

    return Code(names=names, prepare=read, finish=write, scoring=Scoring())


CODES = {
    "rtdetr": Code(names=_authors_names, prepare=read_authors, scoring=Scoring()),
    "transformers": transformers_code(lambda state: _of_trained(state, 1), _TRANSFORMERS_TO_AUTHORS, MEMORY),
}
"""By the project's name."""

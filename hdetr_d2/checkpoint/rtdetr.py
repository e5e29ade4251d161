"""Names of the authors' RT-DETR, RT-DETRv2 and DEIM code (on RT-DETRv2), to and from ours."""

from .renaming import KeyTable

Pairs = list[tuple[str, str]]

_HYBRID = "neck.necks.0."
_PROJECTION = "neck.necks.1.levels.*."
_SOURCE = "transformer.query_source."

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
    ("encoder.encoder.0.layers.*.self_attn.", f"{_HYBRID}encoder.layers.*.self_attn."),
    ("encoder.encoder.0.layers.*.norm1.", f"{_HYBRID}encoder.layers.*.self_attn_norm."),
    ("encoder.encoder.0.layers.*.linear", f"{_HYBRID}encoder.layers.*.ffn.linear"),
    ("encoder.encoder.0.layers.*.norm2.", f"{_HYBRID}encoder.layers.*.ffn_norm."),
    ("decoder.input_proj.*.conv.", f"{_PROJECTION}0."),
    ("decoder.input_proj.*.norm.", f"{_PROJECTION}1."),
    ("decoder.decoder.layers.*.self_attn.", "transformer.decoder.layers.*.self_attn."),
    ("decoder.decoder.layers.*.norm1.", "transformer.decoder.layers.*.self_attn_norm."),
    ("decoder.decoder.layers.*.cross_attn.", "transformer.decoder.layers.*.cross_attn."),
    ("decoder.decoder.layers.*.norm2.", "transformer.decoder.layers.*.cross_attn_norm."),
    ("decoder.decoder.layers.*.linear", "transformer.decoder.layers.*.ffn.linear"),
    ("decoder.decoder.layers.*.norm3.", "transformer.decoder.layers.*.ffn_norm."),
    ("decoder.query_pos_head.", "transformer.decoder.query_position.embed."),
    ("decoder.enc_score_head.", "transformer.heads.encoder_class_embed."),
    ("decoder.enc_bbox_head.", "transformer.heads.encoder_bbox_embed."),
    ("decoder.dec_score_head.*.", "transformer.heads.class_embed.*."),
    ("decoder.dec_bbox_head.*.", "transformer.heads.bbox_embed.*."),
]

V1 = KeyTable(
    [
        *_COMMON,
        ("encoder.input_proj.*.0.", f"{_HYBRID}input_proj.*.conv."),
        ("encoder.input_proj.*.1.", f"{_HYBRID}input_proj.*.norm."),
        ("decoder.enc_output.0.", f"{_SOURCE}enc_output."),
        ("decoder.enc_output.1.", f"{_SOURCE}enc_output_norm."),
    ]
)
"""RT-DETR."""

V2 = KeyTable(
    [
        *_COMMON,
        ("encoder.input_proj.*.", f"{_HYBRID}input_proj.*."),
        ("decoder.enc_output.proj.", f"{_SOURCE}enc_output."),
        ("decoder.enc_output.norm.", f"{_SOURCE}enc_output_norm."),
    ]
)
"""RT-DETRv2, and DEIM on it."""

"""Names of transformers' ``RTDetrForObjectDetection`` and ``RTDetrV2ForObjectDetection``, to and from ours.

The table goes through the authors' names of version 1. What a state dict of transformers does not say by its names:

- Its backbone's BatchNorm is frozen unless ``freeze_backbone_batch_norms`` is off; the names are the same.
- Positions of the encoder are each cell's own, as ours; discrete sampling keeps columns within columns, as ours does.
- Files keep the names of version 4, whatever version wrote them; in memory version 5 has others. Both are read.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from .backbones import is_derived
from .family import Names
from .renaming import KeyTable
from .rtdetr import from_rtdetr, to_rtdetr
from .transformers import join_projections, split_projections

_STEM = "model.backbone.model.embedder.embedder.{}.{}."
_BLOCK = "model.backbone.model.encoder.stages.{}.layers.*."
_THEIRS = "backbone.res_layers.{}.blocks.*."
_PARTS = (("convolution", "conv"), ("normalization", "norm"))

_MEMORY_NAMES = KeyTable(
    [
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
)

_TO_AUTHORS = Names(
    [
        *(
            (_STEM.format(index, theirs), f"backbone.conv1.conv1_{index + 1}.{ours}.")
            for index in range(3)
            for theirs, ours in _PARTS
        ),
        *(
            pair
            for stage in range(4)
            for theirs, ours in _PARTS
            for pair in (
                # Where a stage halves the map, pooling is the first part of the shortcut.
                (
                    f"{_BLOCK.format(stage)}shortcut.{'1.' if stage else ''}{theirs}.",
                    f"{_THEIRS.format(stage)}short.{'conv.' if stage else ''}{ours}.",
                ),
                *(
                    (f"{_BLOCK.format(stage)}layer.{i}.{theirs}.", f"{_THEIRS.format(stage)}branch2{letter}.{ours}.")
                    for i, letter in enumerate("abc")
                ),
            )
        ),
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
    ],
    code="transformers' RTDetr or RTDetrV2",
)

_ALIASES = ("class_embed.", "bbox_embed.")
_TABLES = (".n_points_scale", "model.anchors", "model.valid_mask")


def is_rtdetr_of_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has transformers' names of an RTDetr or RTDetrV2."""
    return "model.encoder_input_proj.0.0.weight" in state


def from_rtdetr_transformers(
    state: Mapping[str, Tensor], *, num_queries: int = 300, classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename a state dict of transformers, of either version; arguments as of ``from_rtdetr``.

    Raises:
        ValueError: for keys that the models do not have, naming them.
    """
    filed = {
        _MEMORY_NAMES.to_ours(key) or key: value
        for key, value in join_projections(state).items()
        if not (key.startswith(_ALIASES) or key.endswith(_TABLES))
    }
    return from_rtdetr(_TO_AUTHORS.to_ours(filed), num_queries=num_queries, classes=classes)


def to_rtdetr_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``from_rtdetr_transformers``, with the names of files; for ``from_pretrained``.

    Raises:
        ValueError: for what the models have no place for, such as a backbone that is no ResNet-vd.
    """
    learned = {key: value for key, value in state.items() if not is_derived(key)}
    return split_projections(_TO_AUTHORS.to_authors(to_rtdetr(learned, version=1)))

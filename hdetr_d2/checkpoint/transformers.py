"""Names of Hugging Face transformers' ``DeformableDetrForObjectDetection``, to and from ours.

The table goes through the authors' names. What a state dict of transformers does not say by its names:

- There is no "no object" class, whatever its documentation says: ``num_labels`` rows are as many sigmoid classes.
- Its two-stage model takes the content of queries from the proposals, our ``mixed=False``.
- It cannot give the encoder's head another width, nor hold queries for training only.
- With refinement and one stage a new model of version 5 has one class head under all names, and files hold one name;
  a file with different heads, such as ours, loads as it is (with a warning).
- Files keep the names of version 4, whatever version wrote them; in memory version 5 has others. Both are read.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .authors import AuthorsLayout, from_authors, to_authors
from .backbones import is_derived
from .renaming import KeyTable

_BODY = "model.backbone.conv_encoder.model."
_OWN_RESNET = [
    ("embedder.embedder.convolution.", "conv1."),
    ("embedder.embedder.normalization.", "bn1."),
    *(
        pair
        for stage in range(4)
        for pair in (
            (f"encoder.stages.{stage}.layers.*.shortcut.convolution.", f"layer{stage + 1}.*.downsample.0."),
            (f"encoder.stages.{stage}.layers.*.shortcut.normalization.", f"layer{stage + 1}.*.downsample.1."),
            *(
                (f"encoder.stages.{stage}.layers.*.layer.{i}.{part}.", f"layer{stage + 1}.*.{ours}{i + 1}.")
                for i in range(3)
                for part, ours in (("convolution", "conv"), ("normalization", "bn"))
            ),
        )
    ),
]
_MEMORY_NAMES = KeyTable(
    [
        ("model.backbone.model.", _BODY),
        ("model.decoder.layers.*.self_attn.o_proj.", "model.decoder.layers.*.self_attn.out_proj."),
        ("model.encoder.layers.*.mlp.fc", "model.encoder.layers.*.fc"),
        ("model.decoder.layers.*.mlp.fc", "model.decoder.layers.*.fc"),
    ]
)
_TO_AUTHORS = KeyTable(
    [
        (_BODY, "backbone.0.body."),
        ("model.input_proj.*.", "input_proj.*."),
        ("model.level_embed", "transformer.level_embed"),
        ("model.query_position_embeddings.weight", "query_embed.weight"),
        *(
            (f"model.{name}.", f"transformer.{name}.")
            for name in ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm", "reference_points")
        ),
        ("model.encoder.layers.*.self_attn.", "transformer.encoder.layers.*.self_attn."),
        ("model.encoder.layers.*.self_attn_layer_norm.", "transformer.encoder.layers.*.norm1."),
        ("model.encoder.layers.*.fc", "transformer.encoder.layers.*.linear"),
        ("model.encoder.layers.*.final_layer_norm.", "transformer.encoder.layers.*.norm2."),
        ("model.decoder.layers.*.self_attn.", "transformer.decoder.layers.*.self_attn."),
        ("model.decoder.layers.*.self_attn_layer_norm.", "transformer.decoder.layers.*.norm2."),
        ("model.decoder.layers.*.encoder_attn.", "transformer.decoder.layers.*.cross_attn."),
        ("model.decoder.layers.*.encoder_attn_layer_norm.", "transformer.decoder.layers.*.norm1."),
        ("model.decoder.layers.*.fc", "transformer.decoder.layers.*.linear"),
        ("model.decoder.layers.*.final_layer_norm.", "transformer.decoder.layers.*.norm3."),
        ("class_embed.*.", "class_embed.*."),
        ("bbox_embed.*.", "bbox_embed.*."),
        ("model.decoder.class_embed.*.", "transformer.decoder.class_embed.*."),
        ("model.decoder.bbox_embed.*.", "transformer.decoder.bbox_embed.*."),
    ]
)
RESNET_TO_TIMM = KeyTable([(_BODY + theirs, _BODY + timm) for theirs, timm in _OWN_RESNET])
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_PROJECTION = re.compile(r"(?P<prefix>.*(?:self|encoder)_attn\.)(?P<projection>[qkv]_proj)\.(?P<part>weight|bias)")


def from_transformers(
    state: Mapping[str, Tensor], *, num_queries: int = 300, classes: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Rename a state dict of transformers, with a ResNet of timm or of its own; arguments as of ``from_authors``.

    Raises:
        ValueError: for keys that the model does not have, naming them.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in join_projections(state).items():
        filed = _MEMORY_NAMES.to_ours(key) or key
        name = _TO_AUTHORS.to_ours(RESNET_TO_TIMM.to_ours(filed) or filed)
        if is_derived(key):
            continue
        if name is None:
            unknown.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise ValueError(f"{len(unknown)} keys are not of transformers' DeformableDetr, such as {unknown[:5]}")
    return from_authors(_restore_tied(renamed), num_queries=num_queries, classes=classes)


def to_transformers(state: Mapping[str, Tensor], *, layout: AuthorsLayout) -> dict[str, Tensor]:
    """The inverse of ``from_transformers``, with timm's names of the ResNet; for ``from_pretrained``.

    Raises:
        ValueError: for what the model has no place for, such as learned contents of a two-stage model's queries.
    """
    authors = to_authors(state, layout=layout)
    if layout.two_stage and "query_embed.weight" in authors:
        raise ValueError("transformers' two-stage model has no learned contents of queries (mixed query selection)")
    if layout.two_stage and not layout.refine:
        raise ValueError("transformers has no two-stage model without refinement")
    renamed = {}
    for key, value in authors.items():
        name = _TO_AUTHORS.to_theirs(key)
        if name is None:
            raise ValueError(f"{key} has no name in transformers' DeformableDetr")
        renamed[name] = value
    return split_projections(renamed)


def join_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value projections of an attention as one matrix, as PyTorch's module has it.

    Raises:
        ValueError: where one of the three is missing, naming it.
    """
    joined = {}
    for key, value in state.items():
        match = _PROJECTION.fullmatch(key)
        if match is None:
            joined[key] = value
        elif match["projection"] == "q_proj":
            names = [f"{match['prefix']}{name}.{match['part']}" for name in _PROJECTIONS]
            missing = [name for name in names if name not in state]
            if missing:
                raise ValueError(f"{key} is without {missing}")
            joined[f"{match['prefix']}in_proj_{match['part']}"] = torch.cat([state[name] for name in names])
    return joined


def split_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``join_projections``."""
    split = {}
    for key, value in state.items():
        prefix, found, part = key.rpartition("in_proj_")
        if found:
            for name, rows in zip(_PROJECTIONS, value.chunk(3)):
                split[f"{prefix}{name}.{part}"] = rows
        else:
            split[key] = value
    return split


def _restore_tied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file holds one name of tensors that have two; the authors' code has both."""
    restored = dict(state)
    for key, value in state.items():
        for head in ("class_embed.", "bbox_embed."):
            if key.startswith(f"transformer.decoder.{head}"):
                restored.setdefault(key.removeprefix("transformer.decoder."), value)
    for key in [key for key in restored if key.startswith("bbox_embed.") and key.endswith(".layers.0.weight")]:
        layer = key.split(".")[1]
        for part in ("weight", "bias"):
            if f"class_embed.0.{part}" in restored:
                restored.setdefault(f"class_embed.{layer}.{part}", restored[f"class_embed.0.{part}"])
    return restored

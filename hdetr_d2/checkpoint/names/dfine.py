"""Names of D-FINE in the authors' code and in transformers, and of DEIM on it in the first.

They are RT-DETRv2's but for the parts that D-FINE has in place of its own. What state dicts do not say by their names:
the positions of the encoder are the authors' table there.
"""

from collections.abc import Callable

from ..class_heads import Scoring
from ..renaming import Code, Names, Pairs, State
from .rtdetr import COMMON, HYBRID, MEMORY, OF_VERSION, T_COMMON, read_authors, require_trained, transformers_code

_BACKBONE: Pairs = [
    ("backbone.stem.", "backbone.body.stem."),
    ("backbone.stages.*.", "backbone.body.stages_*."),
]

_FUSION: Pairs = [
    pair
    for theirs, ours in (("fpn_blocks.*.", "top_down.*."), ("pan_blocks.*.", "bottom_up.*."))
    for pair in (
        (f"encoder.{theirs}cv1.", f"{HYBRID}{ours}input."),
        (f"encoder.{theirs}cv4.", f"{HYBRID}{ours}output."),
        *(
            pair
            for stage in range(2)
            for pair in (
                (f"encoder.{theirs}cv{stage + 2}.0.conv1.", f"{HYBRID}{ours}stages.{stage}.0.main."),
                (f"encoder.{theirs}cv{stage + 2}.0.conv2.", f"{HYBRID}{ours}stages.{stage}.0.side."),
                *(
                    (
                        f"encoder.{theirs}cv{stage + 2}.0.bottlenecks.*.conv{branch + 1}.",
                        f"{HYBRID}{ours}stages.{stage}.0.blocks.*.branches.{branch}.",
                    )
                    for branch in range(2)
                ),
                (f"encoder.{theirs}cv{stage + 2}.1.", f"{HYBRID}{ours}stages.{stage}.1."),
            )
        ),
    )
]

_PARTS: Pairs = [
    *((f"encoder.downsample_convs.*.0.cv{i + 1}.", f"{HYBRID}downsamples.*.{i}.") for i in range(2)),
    ("decoder.decoder.layers.*.gateway.", "transformer.decoder.layers.*.gate."),
    ("decoder.decoder.lqe_layers.*.reg_conf.", "transformer.heads.quality_embed.*.embed."),
    ("decoder.pre_bbox_head.", "transformer.heads.initial_bbox_embed."),
    ("decoder.up", "transformer.heads.up"),
    ("decoder.reg_scale", "transformer.heads.reg_scale"),
]

_PAIRS: Pairs = [*_BACKBONE, *_FUSION, *_PARTS, *COMMON, *OF_VERSION[2]]

NAMES = Names(
    _PAIRS,
    aliases=[(f"decoder.{name}", name) for name in ("decoder.up", "decoder.reg_scale")],
    code="D-FINE",
)


_T_BODY = "model.backbone.model."
_T_CONVOLUTIONS = (  # places of a convolution with its norm
    *((f"embedder.stem{part}.", f"backbone.stem.stem{part}.") for part in ("1", "2a", "2b", "3", "4")),
    *(
        (f"encoder.{place}", f"backbone.{place}")
        for place in (
            "stages.*.downsample.",
            "stages.*.blocks.*.aggregation.*.",
            "stages.*.blocks.*.layers.*.",
            "stages.*.blocks.*.layers.*.conv1.",
            "stages.*.blocks.*.layers.*.conv2.",
        )
    ),
)

_TRANSFORMERS_TO_AUTHORS = Names(
    [
        *(
            (f"{_T_BODY}{theirs}{part}.", f"{ours}{name}.")
            for theirs, ours in _T_CONVOLUTIONS
            for part, name in (("convolution", "conv"), ("normalization", "bn"), ("lab", "lab"))
        ),
        *(
            (f"model.{theirs}.{index}.", f"{ours}.{name}.")
            for theirs, ours, parts in (
                ("encoder_input_proj.*", "encoder.input_proj.*", ("conv", "norm")),
                ("enc_output", "decoder.enc_output", ("proj", "norm")),
            )
            for index, name in enumerate(parts)
        ),
        *(
            (f"model.encoder.{blocks}.*.{theirs}.", f"encoder.{blocks}.*.{ours}.")
            for blocks in ("fpn_blocks", "pan_blocks")
            for theirs, ours in (
                ("conv1", "cv1"),
                ("csp_rep1", "cv2.0"),
                ("conv2", "cv2.1"),
                ("csp_rep2", "cv3.0"),
                ("conv3", "cv3.1"),
                ("conv4", "cv4"),
            )
        ),
        *((f"model.encoder.downsample_convs.*.conv{i}.", f"encoder.downsample_convs.*.0.cv{i}.") for i in (1, 2)),
        ("model.decoder.layers.*.gateway.", "decoder.decoder.layers.*.gateway."),
        ("model.decoder.lqe_layers.", "decoder.decoder.lqe_layers."),
        ("model.decoder.pre_bbox_head.", "decoder.pre_bbox_head."),
        ("model.decoder.up", "decoder.up"),
        ("model.decoder.reg_scale", "decoder.reg_scale"),
        *T_COMMON,
    ],
    code="transformers' DFine",
)

_MEMORY: Pairs = [
    *MEMORY,
    *(
        (f"{memory}mlp.layers.{index}.", f"{filed}fc{index + 1}.")
        for memory, filed in (
            ("model.encoder.aifi.*.layers.*.", "model.encoder.encoder.*.layers.*."),
            ("model.decoder.layers.*.", "model.decoder.layers.*."),
        )
        for index in range(2)
    ),
]


def is_dfine(state: State) -> bool:
    """Whether a state dict has our names of a D-FINE."""
    return "transformer.heads.reg_scale" in state


def is_dfine_of_transformers(state: State) -> bool:
    """Whether a state dict has transformers' names of a DFine."""
    return "model.decoder.reg_scale" in state


def _named(names: Names) -> Callable[[State], Names]:
    """These names, for models that are not re-parameterised."""

    def of(state: State) -> Names:
        require_trained(state)
        return names

    return of


CODES = {
    "dfine": Code(names=_named(NAMES), prepare=read_authors, scoring=Scoring()),
    "transformers": transformers_code(_named(Names(_PAIRS, code="D-FINE")), _TRANSFORMERS_TO_AUTHORS, _MEMORY),
}
"""By the project's name."""

"""Names of D-FINE, and of DEIM on it, in the authors' code.

They are RT-DETRv2's but for the parts that D-FINE has in place of its own. What state dicts do not say by their names:
the positions of the encoder are the authors' table there.
"""

from ..class_heads import Scoring
from ..renaming import Code, Names, Pairs, State
from .rtdetr import COMMON, HYBRID, OF_VERSION, read_authors, require_trained

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

NAMES = Names(
    [*_BACKBONE, *_FUSION, *_PARTS, *COMMON, *OF_VERSION[2]],
    aliases=[(f"decoder.{name}", name) for name in ("decoder.up", "decoder.reg_scale")],
    code="D-FINE",
)


def is_dfine(state: State) -> bool:
    """Whether a state dict has our names of a D-FINE."""
    return "transformer.heads.reg_scale" in state


def _names(state: State) -> Names:
    require_trained(state)
    return NAMES


CODES = {"dfine": Code(names=_names, prepare=read_authors, scoring=Scoring())}
"""By the project's name."""

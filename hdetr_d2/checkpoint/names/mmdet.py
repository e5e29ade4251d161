"""Names of DETR, Conditional, DAB-, Deformable DETR and DINO in mmdetection 3.

Source: open-mmlab/mmdetection. What its state dicts do not say by their names:

- Class heads have a row for each class of the dataset, COCO's 80 in order, DETR's one more for "no object"; label
  tables have no row for an unknown class.
- Necks normalise after convolutions without bias; ours have a bias, which is then zero.
- DINO has heads of its own in each decoder layer (``heads.shared=False``); in mmdetection its references are bounded at
  1e-3 and its boxes at 1e-5, in DAB-DETR the other way round. Ours bound both alike (``decoder.eps``).
- Deformable DETR without refinement repeats one pair of heads under all names.
- Swin merges patches in the order of PyTorch's ``Unfold``, whose channels are permuted here.
- Pixels are RGB (``bgr_to_rgb=True``) and normalised by ImageNet's statistics, as in our configs.
"""

import re

import torch
from torch import Tensor

from hdetr_d2.supervision import PRIMARY

from ..class_heads import FIRST_HEAD, Scoring
from ..renaming import Code, Names, Pairs, State, prefixed
from .backbones import RESNET
from .detr import model_of_ours as dense_model_of_ours
from .dino import model_of_ours as dino_of_ours

_SOURCE = "transformer.query_source."
_HEADS = "transformer.heads."
_PLACE = "transformer.decoder.query_position."
_T = "transformer."
_QUERIES = "query_embedding.weight"

_SWIN: Pairs = [
    ("patch_embed.projection.", "body.patch_embed.proj."),
    ("patch_embed.norm.", "body.patch_embed.norm."),
    *(
        (f"stages.*.blocks.*.{theirs}", f"body.layers_*.blocks.*.{ours}")
        for theirs, ours in (
            ("norm1.", "norm1."),
            ("attn.w_msa.", "attn."),
            ("norm2.", "norm2."),
            ("ffn.layers.0.0.", "mlp.fc1."),
            ("ffn.layers.1.", "mlp.fc2."),
        )
    ),
    *((f"stages.{stage}.downsample.", f"body.layers_{stage + 1}.downsample.") for stage in range(3)),
    *((f"norm{stage}.", f"norms.res{stage + 2}.") for stage in range(4)),
]
_MERGE = re.compile(r"backbone\.stages\.\d+\.downsample\.(norm\.(weight|bias)|reduction\.weight)")


def _layers(part: str, norms: tuple[str, ...]) -> Pairs:
    layer, ours = f"{part}.layers.*.", f"{_T}{part}.layers.*."
    return [
        *((f"{layer}norms.{index}.", f"{ours}{name}.") for index, name in enumerate(norms)),
        (f"{layer}ffn.layers.0.0.", f"{ours}ffn.linear1."),
        (f"{layer}ffn.layers.0.1.", f"{ours}ffn.activation."),
        (f"{layer}ffn.layers.1.", f"{ours}ffn.linear2."),
    ]


_BODY: Pairs = [
    *prefixed(RESNET, "backbone.", "backbone."),
    *prefixed(_SWIN, "backbone.", "backbone."),
    *_layers("encoder", ("self_attn_norm", "ffn_norm")),
    *_layers("decoder", ("self_attn_norm", "cross_attn_norm", "ffn_norm")),
]
_DENSE: Pairs = [
    *_BODY,
    ("neck.convs.0.conv.", "neck.levels.0.0."),
    ("encoder.layers.*.self_attn.attn.", f"{_T}encoder.layers.*.self_attn."),
    ("decoder.post_norm.", f"{_T}decoder.norm."),
    ("bbox_head.fc_cls.", f"{_HEADS}class_embed.0."),
]
_DETR_BOXES: Pairs = [
    ("bbox_head.reg_ffn.layers.0.0.", f"{_HEADS}bbox_embed.0.layers.0."),
    ("bbox_head.reg_ffn.layers.1.", f"{_HEADS}bbox_embed.0.layers.1."),
    ("bbox_head.fc_reg.", f"{_HEADS}bbox_embed.0.layers.2."),
]
_CONDITIONAL: Pairs = [
    *(
        (f"decoder.layers.*.{attention}.{theirs}.", f"{_T}decoder.layers.*.{attention}.{ours}.")
        for attention in ("self_attn", "cross_attn")
        for theirs, ours in (
            ("qcontent_proj", "query_content"),
            ("qpos_proj", "query_position"),
            ("qpos_sine_proj", "query_spatial"),
            ("kcontent_proj", "key_content"),
            ("kpos_proj", "key_position"),
            ("v_proj", "value"),
            ("out_proj", "out"),
        )
    ),
    ("decoder.query_scale.", f"{_PLACE}scale."),
]
_DEFORMABLE: Pairs = [
    *_BODY,
    ("level_embed", f"{_T}level_embed"),
    ("encoder.layers.*.self_attn.", f"{_T}encoder.layers.*.self_attn."),
    ("decoder.layers.*.self_attn.attn.", f"{_T}decoder.layers.*.self_attn."),
    ("decoder.layers.*.cross_attn.", f"{_T}decoder.layers.*.cross_attn."),
    ("memory_trans_fc.", f"{_SOURCE}enc_output."),
    ("memory_trans_norm.", f"{_SOURCE}enc_output_norm."),
    ("pos_trans_fc.", f"{_SOURCE}pos_trans."),
    ("pos_trans_norm.", f"{_SOURCE}pos_trans_norm."),
    ("reference_points_fc.", f"{_SOURCE}reference_points."),
]
_DINO: Pairs = [
    *_DEFORMABLE,
    ("decoder.ref_point_head.", f"{_PLACE}embed."),
    ("decoder.norm.", f"{_T}decoder.norm."),
    (_QUERIES, f"{_SOURCE}content.{PRIMARY}"),
    ("dn_query_generator.label_embedding.weight", f"{_T}denoising.label_embed.weight"),
]


def detr_names() -> Names:
    """DETR."""
    attentions = [
        (f"decoder.layers.*.{name}.attn.", f"{_T}decoder.layers.*.{name}.") for name in ("self_attn", "cross_attn")
    ]
    pairs = [*_DENSE, *_DETR_BOXES, *attentions, (_QUERIES, f"{_SOURCE}embed.{PRIMARY}")]
    return Names(pairs, code="mmdetection's DETR", ignored=_IGNORED)


def conditional_detr_names() -> Names:
    """Conditional DETR."""
    pairs = [
        *_DENSE,
        *_DETR_BOXES,
        *_CONDITIONAL,
        ("decoder.ref_point_head.", f"{_SOURCE}reference_points."),
        (_QUERIES, f"{_SOURCE}embed.{PRIMARY}"),
    ]
    return Names(pairs, code="mmdetection's Conditional DETR", ignored=_IGNORED)


def dab_detr_names() -> Names:
    """DAB-DETR."""
    pairs = [
        *_DENSE,
        *_CONDITIONAL,
        ("bbox_head.fc_reg.", f"{_HEADS}bbox_embed.0."),
        ("encoder.query_scale.", f"{_T}encoder.position_scale."),
        ("decoder.ref_point_head.", f"{_PLACE}embed."),
        ("decoder.ref_anchor_head.", f"{_PLACE}size."),
        ("patterns.weight", f"{_SOURCE}patterns"),
        (_QUERIES, f"{_SOURCE}anchors.{PRIMARY}"),
    ]
    return Names(pairs, code="mmdetection's DAB-DETR", ignored=_IGNORED)


def deformable_names(layout: "Layout") -> Names:
    """Deformable DETR of any kind."""
    pairs = [*_DEFORMABLE, *_necks(layout.num_convs), (_QUERIES, f"{_SOURCE}embed.{PRIMARY}"), *layout.heads()]
    return Names(pairs, code="mmdetection's Deformable DETR", aliases=layout.aliases(), ignored=_IGNORED)


def dino_names(layout: "Layout") -> Names:
    """DINO."""
    pairs = [*_DINO, *_necks(layout.num_convs), *layout.heads()]
    return Names(pairs, code="mmdetection's DINO", aliases=layout.aliases(), ignored=_IGNORED)


_IGNORED = ("bbox_head.loss_cls.",)  # the weight of each class in DETR's loss
_CLS, _REG = "bbox_head.cls_branches.", "bbox_head.reg_branches."


class Layout:
    """What the names of a deformable model, of either side, do not say each for itself.

    Args:
        state: their names or ours.
    """

    def __init__(self, state: State) -> None:
        ours = FIRST_HEAD in state
        prefix = "transformer." if ours else ""
        numbers = [match.group(1) for key in state if (match := re.match(rf"{prefix}decoder\.layers\.(\d+)\.", key))]
        if not numbers:
            raise ValueError(f"there is no {prefix}decoder.layers.* among the keys, such as {sorted(state)[:5]}")
        self.num_layers = max(map(int, numbers)) + 1
        source = f"{_SOURCE}enc_output.weight" if ours else "memory_trans_fc.weight"
        self.two_stage = source in state
        if ours:
            last = "encoder_bbox_embed" if self.num_layers == 1 else "bbox_embed.1"
            self.own_heads = f"{_HEADS}{last}.layers.0.weight" in state
            self.num_convs = sum(
                value.ndim == 4 and value.shape[-1] == 1
                for key, value in state.items()
                if re.fullmatch(r"neck\.levels\.\d+\.0\.weight", key)
            )
        else:
            self.own_heads = (self.num_layers == 1 and self.two_stage) or _differ(state, self.num_layers)
            self.num_convs = sum(bool(re.fullmatch(r"neck\.convs\.\d+\.conv\.weight", key)) for key in state)

    def heads(self) -> Pairs:
        """Pairs of heads: with two stages the encoder's pair comes after those of the decoder's layers."""
        if not self.own_heads:
            return [*_pair("0", "0")]
        encoder = _pair(str(self.num_layers), None) if self.two_stage else []
        return [*encoder, *(pair for layer in range(self.num_layers) for pair in _pair(str(layer), str(layer)))]

    def aliases(self) -> list[tuple[str, str]]:
        """Names under which one pair of heads is repeated."""
        if self.own_heads:
            return []
        further = range(1, self.num_layers + self.two_stage)
        return [(f"{head}{layer}.", f"{head}0.") for head in (_CLS, _REG) for layer in further]


def _pair(theirs: str, ours: str | None) -> Pairs:
    cls, reg = (
        ("encoder_class_embed.", "encoder_bbox_embed.")
        if ours is None
        else (
            f"class_embed.{ours}.",
            f"bbox_embed.{ours}.",
        )
    )
    linears = [(f"{_REG}{theirs}.{place}.", f"{_HEADS}{reg}layers.{place // 2}.") for place in (0, 2, 4)]
    return [(f"{_CLS}{theirs}.", f"{_HEADS}{cls}"), *linears]


def _necks(num_convs: int) -> Pairs:
    """Levels from the backbone, then those that are made of the last one."""
    slots = (("conv", 0), ("gn", 1))
    further = [
        (f"neck.extra_convs.{index}.{name}.", f"neck.levels.{num_convs + index}.{slot}.")
        for index in range(3)
        for name, slot in slots
    ]
    return [*further, *((f"neck.convs.*.{name}.", f"neck.levels.*.{slot}.") for name, slot in slots)]


def _differ(state: State, num_layers: int) -> bool:
    """Whether layers have heads of their own."""
    first = state.get(f"{_REG}0.0.weight")
    others = [state.get(f"{_REG}{layer}.0.weight") for layer in range(1, num_layers)]
    return first is not None and any(other is not None and not torch.equal(first, other) for other in others)


def _read(state: State, num_queries: int) -> dict[str, Tensor]:
    """With the biases that their necks do not have, and our order of merged patches; without what is held twice."""
    del num_queries
    read: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".ffn.activate." in key:  # of mmcv 1, the activation once more
            continue
        read[key] = _to_official(value) if _MERGE.fullmatch(key) else value
        conv = re.fullmatch(r"(neck\.(?:extra_)?convs\.\d+\.conv)\.weight", key)
        if conv and f"{conv.group(1)}.bias" not in state:
            read[f"{conv.group(1)}.bias"] = value.new_zeros(len(value))
    return read


def _write(state: State) -> dict[str, Tensor]:
    """The inverse; a neck's bias stays where it is not zero, for a ``ChannelMapper`` with ``bias=True``."""
    normed = any(".gn." in key for key in state)
    written = {}
    for key, value in state.items():
        bias = normed and re.fullmatch(r"neck\.(extra_)?convs\.\d+\.conv\.bias", key)
        if not (bias and not value.any()):
            written[key] = _from_official(value) if _MERGE.fullmatch(key) else value
    return written


def _to_official(value: Tensor) -> Tensor:
    """(..., C 2 2), channels before rows before columns, as (..., 2 2 C): columns, rows, channels."""
    return value.unflatten(-1, (value.shape[-1] // 4, 2, 2)).movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3)


def _from_official(value: Tensor) -> Tensor:
    return value.unflatten(-1, (2, 2, value.shape[-1] // 4)).movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3)


def model_of_theirs(state: State) -> str:
    """Which model a state dict with mmdetection's names is, by what other projects call it."""
    if "decoder.layers.0.self_attn.qcontent_proj.weight" in state:
        return "dab_detr" if "bbox_head.fc_reg.layers.0.weight" in state else "conditional_detr"
    if "bbox_head.fc_cls.weight" in state:
        return "detr"
    return "dino" if "decoder.ref_point_head.layers.0.weight" in state else "deformable_detr"


def model_of_ours(state: State) -> str:
    """Which model a state dict with our names becomes there."""
    return dense_model_of_ours(state) or dino_of_ours(state) or "deformable_detr"


def _names(state: State) -> Names:
    ours = FIRST_HEAD in state
    model = model_of_ours(state) if ours else model_of_theirs(state)
    if model in ("deformable_detr", "dino"):
        layout = Layout(state)
        if model == "dino" and not layout.own_heads:
            raise ValueError(
                "mmdetection's DINO has heads of its own in each decoder layer, and these weights share one"
            )
        return dino_names(layout) if model == "dino" else deformable_names(layout)
    return {"detr": detr_names, "conditional_detr": conditional_detr_names, "dab_detr": dab_detr_names}[model]()


def scoring_of(state: State) -> Scoring:
    """How the model of a state dict with their names reads its class heads."""
    model = model_of_theirs(state)
    two_stage = "memory_trans_fc.weight" in state
    return Scoring(no_object=model == "detr", objectness=model == "deformable_detr" and two_stage)


CODE = Code(names=_names, prepare=_read, finish=_write)
"""All of them; the state dict says which it is of."""

__all__ = ["CODE", "model_of_ours", "model_of_theirs", "scoring_of"]

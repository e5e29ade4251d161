"""Small parity files made by our own model, in the format of those from the authors' code.

They say that a file round-trips through the reader, the options and the names; that the numbers are the authors' is
said by files from their code alone.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from torch import Tensor, nn

from hdetr_d2.modeling import DETR, DenoisingQueries
from hdetr_d2.modeling.postprocess import fused_logits
from hdetr_d2.parity.archive import Archive
from hdetr_d2.parity.inputs import Inputs, read_inputs
from hdetr_d2.parity.kinds import kind_of
from hdetr_d2.parity.model_file import ModelFile
from hdetr_d2.structures import Predictions
from hdetr_d2.supervision import PRIMARY

FRAME = (64, 96)
SIZES = [(64, 96), (48, 80)]
Arrays = dict[str, Tensor]

_COMMON: dict[str, Any] = {
    "channels": [4, 4],
    "enc_layers": 1,
    "dec_layers": 2,
    "ffn": 16,
    "num_classes": 3,
    "d_model": 32,
    "nheads": 2,
    "num_queries_one2one": 12,
}
_LEVELS = {"num_feature_levels": 3, "enc_n_points": 2, "dec_n_points": 2}
_FAMILY: dict[str, Any] = dict(
    _COMMON,
    num_queries=12,
    dropout=0.0,
    cost={"class": 2.0, "bbox": 4.0, "giou": 1.0},
    loss_weight={"ce": 1.5, "bbox": 4.0, "giou": 1.0},
    matcher=[2.0, 4.0, 1.0],
    pe_temperature=20,
    position_temperature=[20, 20],
    topk=10,
)
_DENSE = dict(_FAMILY, channels=[4], pre_norm=False, position_offset=0.0)
_ANCHORS = {"num_patterns": 0, "classification": "focal", "inverse_sigmoid_eps": 1e-3, "focal_alpha": 0.3}
_DAB = {
    "modulate_hw_attn": True,
    "keep_query_pos": False,
    "query_scale_type": "cond_elewise",
    "bbox_embed_diff_each_layer": False,
    "activation": "prelu",
    "with_box_refine": True,
    "look_forward_twice": True,
}
_DN = {"use_dn": True, "dn_groups": 3, "label_noise_scale": 0.5, "box_noise_scale": 0.8}
_ONE_TO_MANY: dict[str, Any] = dict(
    _COMMON,
    **_LEVELS,
    num_queries=12,
    topk=10,
    two_stage=True,
    with_box_refine=True,
    mixed_selection=True,
    look_forward_twice=True,
    o2m_threshold=0.3,
    o2m_k=3,
    o2m_iou_weight=0.7,
    o2m_class_weight=0.3,
    o2m_loss_divisor="2*N",
    enc_match="anchors, cost 0/5/2",
    matcher=[2.0, 5.0, 2.0],
)
_MR = dict(
    _ONE_TO_MANY,
    routes=["o2o", "group", "sep"],
    num_instructions=4,
    o2m_batch_size_per_image=40,
    o2m_positive_fraction=0.25,
    inverse_sigmoid_eps=1e-3,
)
_RTDETR: dict[str, Any] = {
    "channels": [4, 4],
    "strides": [8, 16],
    "hidden_dim": 16,
    "nhead": 2,
    "enc_layers": 1,
    "enc_ffn": 16,
    "enc_act": "gelu",
    "act": "silu",
    "use_encoder_idx": [1],
    "pe_temperature": 100,
    "expansion": 0.5,
    "depth_mult": 0.34,
    "num_levels": 3,
    "num_points": 2,
    "dec_layers": 2,
    "ffn": 16,
    "activation": "relu",
    "num_classes": 3,
    "num_queries": 12,
    "num_denoising": 6,
    "label_noise_ratio": 0.8,
    "box_noise_scale": 0.8,
    "learn_query_content": False,
    "eval_idx": -1,
    "eps": 0.02,
    "losses": ["vfl", "boxes"],
    "weight_dict": {"loss_vfl": 1, "loss_mal": 1, "loss_bbox": 5, "loss_giou": 2},
    "alpha": 0.6,
    "gamma": 1.5,
    "matcher": {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2, "alpha": 0.25, "gamma": 2.0, "use_focal_loss": True},
    "topk": 10,
    "ngt": [3, 1],
    "bn_mode": "train",
    "frames": {"": list(FRAME)},
    "orig_size_hw": [48, 64],
}
_RTDETR2 = dict(
    _RTDETR,
    cross_attn_method="default",
    query_select_method="default",
    boxes_weight_format=None,
    share_matched_indices=False,
)
_DFINE: dict[str, Any] = {
    **{name: _RTDETR[name] for name in ("channels", "strides", "num_classes", "topk", "bn_mode", "orig_size_hw")},
    "hidden_dim": 16,
    "frames": {"": list(FRAME)},
    "up": 0.6,
    "epoch": 0,
    "ngt": {"": [3, 1]},
    "variants": {},
    "encoder": {
        "type": "HybridEncoder",
        "nhead": 2,
        "ffn": 16,
        "enc_act": "relu",
        "use_encoder_idx": [1],
        "num_encoder_layers": 1,
        "pe_temperature": 20,
        "expansion": 0.5,
        "depth_mult": 0.34,
        "act": "silu",
    },
    "decoder": {
        "num_queries": 12,
        "num_levels": 2,
        "feat_strides": [8, 16],
        "num_points": [1, 2],
        "nhead": 2,
        "num_layers": 2,
        "ffn": 16,
        "activation": "relu",
        "num_denoising": 6,
        "label_noise_ratio": 0.8,
        "box_noise_scale": 1.0,
        "effective_box_noise_scale": 1.0,
        "learn_query_content": False,
        "eval_idx": -1,
        "eps": 0.02,
        "query_select_method": "default",
        "reg_max": 8,
        "reg_scale": 3.0,
        "layer_scale": 1,
    },
    "criterion": {
        "weight_dict": {"loss_vfl": 1, "loss_bbox": 5, "loss_giou": 2, "loss_fgl": 0.2, "loss_ddf": 1.2},
        "losses": ["vfl", "boxes", "local"],
        "alpha": 0.6,
        "gamma": 1.5,
        "boxes_weight_format": None,
        "matcher": {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2, "alpha": 0.25, "gamma": 2.0},
    },
}


def _weights(layers: int, **suffixes: float) -> dict[str, float]:
    """Loss weights of every layer: 2, 5 and 2, times a factor for each further suffix."""
    factors = {"": 1.0, **{f"_{layer}": 1.0 for layer in range(layers - 1)}, **suffixes}
    kinds = {"ce": 2.0, "class": 2.0, "bbox": 5.0, "giou": 2.0}
    return {f"loss_{kind}{suffix}": w * factor for kind, w in kinds.items() for suffix, factor in factors.items()}


_MR_WEIGHTS = _weights(
    2, **{f"_{group}_{layer}": 0.5 for group in ("group", "sep") for layer in range(2)}, _enc=3.0, _enc_o2m=1.5
)
_MR_DINO_WEIGHTS = {
    **_MR_WEIGHTS,
    **_weights(2, **{f"_dn{route}{layer}": 1.0 for route in ("", "_o2m", "_sep") for layer in ("", "_0")}),
}

_RELATION_WEIGHTS = {
    f"loss_{kind}{place}{group}": weight * factor
    for kind, weight in (("class", 1.5), ("bbox", 4.0), ("giou", 1.0))
    for group, factor in (("", 1.0), ("_hybrid", 0.5))
    for place in ("", "_0", "_enc", *(("_dn", "_dn_0") if not group else ()))
}

CONFIGS: Mapping[str, dict[str, Any]] = {
    "h_detr": dict(
        _COMMON,
        num_queries_one2many=18,
        k_one2many=2,
        lambda_one2many=0.5,
        two_stage=True,
        with_box_refine=True,
        mixed_selection=True,
        look_forward_twice=True,
        topk=10,
        **_LEVELS,
    ),
    "detr": dict(
        _DENSE, model="detr", eos_coef=0.2, classification="softmax", topk=None, position_temperature=[20, 20]
    ),
    "dab_detr": dict(_DENSE, **_ANCHORS, **_DAB, model="dab_detr"),
    "dn_detr": dict(_DENSE, **_ANCHORS, **_DAB, **_DN, model="dn_detr"),
    "dab_deformable_detr": dict(_FAMILY, **_ANCHORS, **_LEVELS, model="dab_deformable_detr", with_box_refine=True),
    "dn_deformable_detr": dict(_FAMILY, **_ANCHORS, **_LEVELS, **_DN, model="dn_deformable_detr", with_box_refine=True),
    "dino": dict(
        _COMMON,
        **_LEVELS,
        model="dino",
        dim_feedforward=16,
        num_queries=12,
        num_select=10,
        topk=10,
        dn_number=2,
        dn_box_noise_scale=0.8,
        dn_label_noise_ratio=0.6,
        dn_labelbook_size=5,
        embed_init_tgt=True,
        use_detached_boxes_dec_out=False,
        two_stage_bbox_embed_share=False,
        two_stage_class_embed_share=False,
        dec_pred_bbox_embed_share=True,
        dec_pred_class_embed_share=True,
        interm_loss_coef=0.5,
        cls_loss_coef=1.5,
        bbox_loss_coef=4.0,
        giou_loss_coef=1.0,
        set_cost_class=2.0,
        set_cost_bbox=4.0,
        set_cost_giou=1.0,
        pe_temperatureH=20,
        pe_temperatureW=30,
        position_temperature=[20, 30],
        two_stage=True,
        with_box_refine=True,
        mixed_selection=True,
        look_forward_twice=True,
    ),
    "ms_detr": dict(
        _ONE_TO_MANY,
        model="ms_deformable_detr",
        use_ms_detr=True,
        use_aux_ffn=True,
        use_indices_merge=False,
        use_anchors_enc_match=True,
        o2m_matcher_k=3,
        o2m_positive_cap=8,
        cls_loss_coef=2.0,
        o2m_cls_loss_coef=1.0,
        loss_weights=_weights(2, _o2m=0.5, _0_o2m=0.5, _enc=1.5),
    ),
    "mr_detr": dict(_MR, model="mr_detr_deformable", base="deformable", loss_weights=_MR_WEIGHTS),
    "mr_detr_dino": dict(
        _MR,
        model="mr_detr_dino",
        base="dino",
        loss_weights=_MR_DINO_WEIGHTS,
        dn_number=6,
        dn_label_noise_ratio=0.8,
        dn_box_noise_scale=0.8,
    ),
    "rtdetr": dict(_RTDETR, model="rtdetr"),
    "rtdetrv2": dict(_RTDETR2, model="rtdetrv2"),
    "deim": dict(
        _RTDETR2,
        model="deim_rtdetrv2",
        version="rt_detrv2",
        mlp_act="silu",
        query_pos_method="as_reg",
        mal_alpha=None,
        use_uni_set=False,
        losses=["mal", "boxes"],
    ),
    "relation_detr": dict(
        {name: value for name, value in _COMMON.items() if name != "d_model"},
        **_LEVELS,
        model="relation_detr",
        hidden_dim=32,
        dim_feedforward=16,
        num_queries=12,
        num_select=10,
        topk=10,
        hybrid_num_proposals=14,
        hybrid_assign=2,
        hybrid_mask=None,
        hybrid_skips_relation=True,
        two_stage=True,
        with_box_refine=True,
        mixed_selection=True,
        look_forward_twice=True,
        two_stage_binary_cls=False,
        memory_fusion=True,
        query_scale=True,
        dec_pred_bbox_embed_share=False,
        dec_pred_class_embed_share=False,
        position_temperature=[20, 30],
        position_normalize=True,
        query_sine_temperature=10000,
        relation_embed_dim=8,
        relation_temperature=100.0,
        relation_scale=50.0,
        relation_eps=1e-4,
        relation_activation="relu",
        denoising="cdn",
        dn_number=6,
        dn_num_groups=2,
        dn_label_noise_ratio=0.6,
        dn_box_noise_scale=0.8,
        dn_labelbook_size=5,
        set_cost_class=2.0,
        set_cost_bbox=4.0,
        set_cost_giou=1.0,
        matcher_alpha=0.3,
        matcher_gamma=1.5,
        matcher_log_eps=1e-6,
        class_loss="vfl",
        vfl_alpha=0.4,
        vfl_gamma=1.5,
        cls_loss_coef=1.5,
        bbox_loss_coef=4.0,
        giou_loss_coef=1.0,
        dn_loss_coefs=[1.5, 4.0, 1.0],
        enc_loss_coefs=[1.5, 4.0, 1.0],
        aux_loss_factor=1.0,
        hybrid_loss_factor=0.5,
        loss_weights=_RELATION_WEIGHTS,
        post_size=[48, 64],
    ),
    "dfine": dict(_DFINE, model="dfine"),
    "deim_dfine": dict(
        _DFINE,
        model="deim_dfine",
        encoder=dict(_DFINE["encoder"], version="dfine", act="gelu"),
        decoder=dict(_DFINE["decoder"], mlp_act="silu", activation="gelu"),
        criterion=dict(
            _DFINE["criterion"],
            weight_dict={"loss_mal": 1, "loss_bbox": 5, "loss_giou": 2, "loss_fgl": 0.2, "loss_ddf": 1.2},
            losses=["mal", "boxes", "local"],
            mal_alpha=0.7,
            use_uni_set=True,
        ),
    ),
}
"""One config a kind, with values that are not the defaults."""


def write(path: Path, config: Mapping[str, Any], *, objects: tuple[int, ...] = (3, 1), seed: int = 0) -> Path:
    """A file of the model that ``config`` describes; returns ``path``."""
    torch.manual_seed(seed)
    kind, options = kind_of(config)
    assert kind.file is not None
    file = kind.file(Archive({}), options)
    file.config = file.node()
    model = instantiate(file.config)
    _perturb(model)
    arrays = _inputs(config, objects)
    state = {key: value.clone() for key, value in file.names().to_authors(model.state_dict()).items()}
    arrays.update({f"sd/{key}": value for key, value in state.items()})
    frame = FRAME if "frames" in config else None
    inputs = read_inputs(Archive(arrays), channels=config["channels"], num_classes=config["num_classes"], frame=frame)
    arrays.update(_training(file, model, inputs, of_slots=frame is not None))
    model.load_state_dict(file.names().to_ours(state))
    arrays.update(_evaluation(file, model, inputs))
    raw = np.frombuffer(json.dumps(config).encode(), dtype=np.uint8)
    np.savez(path, **{key: value.detach().numpy() for key, value in arrays.items()}, **{"config.json": raw})
    return path


def _perturb(model: nn.Module) -> None:
    """Make no part trivially right."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or "heads" in name or not parameter.any():
                parameter.add_(torch.randn_like(parameter) * 0.2)


def _inputs(config: Mapping[str, Any], objects: tuple[int, ...]) -> Arrays:
    batch, (height, width) = len(objects), FRAME
    arrays = {
        f"in/feat{level}": torch.randn(batch, channels, height // 8 // 2**level, width // 8 // 2**level)
        for level, channels in enumerate(config["channels"])
    }
    mask = torch.ones(batch, height, width, dtype=torch.bool)
    for image, (h, w) in enumerate(SIZES[:batch]):
        mask[image, :h, :w] = False
    arrays.update({"in/mask": mask, "in/image_sizes": torch.tensor(SIZES[:batch])})
    for image, count in enumerate(objects):
        arrays[f"gt/{image}/labels"] = torch.randint(config["num_classes"], (count,))
        arrays[f"gt/{image}/boxes_cxcywh"] = torch.rand(count, 4) * 0.3 + 0.2
    return arrays


def _training(file: ModelFile[Any], model: DETR, inputs: Inputs, *, of_slots: bool) -> Arrays:
    """Noise, predictions, losses and gradients."""
    arrays: Arrays = {}
    denoising = model.transformer.denoising
    if denoising is not None:
        arrays.update(_noise(denoising, inputs, of_slots=of_slots))
    for feature in inputs.features.values():
        feature.requires_grad_()
    predictions, proposals = model.train().predict(*inputs.arguments, inputs.targets)
    named = {file.output(group): one for group, one in predictions.items()}
    named |= {
        file.output("enc" if g == PRIMARY else f"enc_{g}"): Predictions(p.logits[-1], p.boxes[-1])
        for g, p in proposals.items()
    }
    for key, one in named.items():
        arrays.update({f"{key}/logits": one.logits, f"{key}/boxes": one.boxes})
    losses: Arrays = {}
    for key, value in model.losses(predictions, proposals, inputs.targets).items():
        scale = file.scale(model, key)
        if scale is not None:
            losses[file.loss(key)] = value * scale
    losses = file.complete(losses)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    gradients = {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters()}
    arrays.update({f"loss/{key}": value for key, value in losses.items()}, loss_total=total)
    norms = file.names().to_authors(gradients)
    arrays.update({f"grad_norm/{key}": value.norm() for key, value in norms.items()})
    for level, feature in enumerate(inputs.features.values()):
        assert feature.grad is not None
        arrays[f"grad_norm_in/feat{level}"] = feature.grad.norm()
    return arrays


def _noise(denoising: DenoisingQueries, inputs: Inputs, *, of_slots: bool) -> Arrays:
    """Draws, kept for the step to come, and what becomes of the targets."""
    made = denoising.noise(inputs.targets)
    batch, slots = made.labels.shape
    arrays: Arrays = {}
    flip, part, sign = (
        torch.rand(batch, slots),
        torch.rand(batch, slots, 4),
        torch.randint(2, (batch, slots, 4)).float(),
    )
    label = torch.randint(denoising.num_classes, (batch, slots))
    image, slot = made.valid.nonzero().unbind(1)
    chosen = flip[image, slot] < denoising.label_noise
    if of_slots:
        arrays.update({"dn/rand/label_u": flip, "dn/rand/new_label": label})
        arrays.update({"dn/rand/part01": part, "dn/rand/sign01": sign})
    else:
        arrays.update({"dn/flat_image": image, "dn/flat_slot": slot, "dn/draw/label_p": flip[image, slot]})
        arrays["dn/draw/new_label"] = label[image, slot][chosen]
        arrays.update({"dn/draw/part": part[image, slot], "dn/draw/sign01": sign[image, slot]})
    draws = type(denoising.draw(1, 1))(flip, label, part * (2 * sign - 1))
    denoising.draw = lambda num_images, num_slots: draws
    noised = denoising.noise(inputs.targets)
    arrays.update({"dn/labels": noised.labels, "dn/boxes_cxcywh": noised.boxes})
    return arrays


@torch.no_grad()
def _evaluation(file: ModelFile[Any], model: DETR, inputs: Inputs) -> Arrays:
    predictions, _ = model.eval().predict(*inputs.arguments)
    primary = predictions[PRIMARY]
    logits = fused_logits(primary.logits) if model.fuse_layers else primary.logits[-1]
    arrays = {"eval/logits": logits, "eval/boxes": primary.boxes[-1]}
    height, width = file.original_size
    for image, (scores, labels, boxes) in enumerate(zip(*model.detections(primary))):
        pixels = boxes * torch.tensor([width, height, width, height])
        arrays.update(_post(f"eval/post/{image}", scores, labels, pixels))
    return arrays


def _post(key: str, scores: Tensor, labels: Tensor, boxes: Tensor) -> Arrays:
    return {f"{key}/scores": scores, f"{key}/labels": labels, f"{key}/boxes": boxes}


def changed(config: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """A config with other options; of nested parts with some other options."""
    parts = ("encoder", "decoder", "criterion")
    return {**config, **{k: {**config[k], **v} if k in parts else v for k, v in options.items()}}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every number, truth value and word of a config, with its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path, value

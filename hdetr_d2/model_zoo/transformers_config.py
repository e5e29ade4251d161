"""``config.json`` of transformers' models, to our configs and back.

Both are compared with what they say when they are turned round again, so that what one side cannot say is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hdetr_d2.errors import UserError

from .transformers_dfine import fine_json, set_fine
from .zoo import get_config

Json = Mapping[str, Any]


class TransformersConfigError(UserError, ValueError):
    """A model of transformers that is not ours, or one of ours that is not theirs; the message names what differs."""


@dataclass(frozen=True)
class Family:
    """One kind of model in transformers.

    Args:
        model_type: as config.json has it.
        architecture: the class that detects.
        processor: the class that prepares its images.
        recipe: our config that it is closest to, which also says how images are prepared.
        fields: (theirs, ours): a key of config.json, and a key below ``model``.
        width: their key for the width of the transformer.
    """

    model_type: str
    architecture: str
    processor: str
    recipe: str
    fields: tuple[tuple[str, str], ...]
    width: str = "d_model"


_LAYERS = (
    ("encoder_layers", "transformer.encoder.num_layers"),
    ("encoder_attention_heads", "transformer.encoder.layer.num_heads"),
    ("encoder_ffn_dim", "transformer.encoder.layer.hidden_dim"),
    ("dropout", "transformer.encoder.layer.dropout"),
    ("decoder_layers", "transformer.decoder.num_layers"),
    ("decoder_attention_heads", "transformer.decoder.layer.num_heads"),
    ("decoder_ffn_dim", "transformer.decoder.layer.hidden_dim"),
    ("num_queries", "transformer.query_source.num_queries"),
)
_DENSE = (*_LAYERS, ("activation_function", "transformer.encoder.layer.activation"))
_DEFORMABLE = (
    *_LAYERS,
    ("num_feature_levels", "transformer.num_levels"),
    ("encoder_n_points", "transformer.encoder.layer.num_points"),
    ("decoder_n_points", "transformer.decoder.layer.num_points"),
)
_RT = (
    ("encoder_layers", "neck.necks.0.encoder.num_layers"),
    ("encoder_hidden_dim", "neck.necks.0.out_channels"),
    ("encoder_attention_heads", "neck.necks.0.encoder.layer.num_heads"),
    ("encoder_ffn_dim", "neck.necks.0.encoder.layer.hidden_dim"),
    ("encoder_activation_function", "neck.necks.0.encoder.layer.activation"),
    ("activation_function", "neck.necks.0.activation"),
    ("hidden_expansion", "neck.necks.0.expansion"),
    ("num_feature_levels", "transformer.num_levels"),
    ("decoder_layers", "transformer.decoder.num_layers"),
    ("decoder_attention_heads", "transformer.decoder.layer.num_heads"),
    ("decoder_ffn_dim", "transformer.decoder.layer.hidden_dim"),
    ("decoder_activation_function", "transformer.decoder.layer.activation"),
    ("decoder_n_points", "transformer.decoder.layer.num_points"),
    ("num_queries", "transformer.query_source.num_queries"),
)


_FINE = (
    *_RT,
    ("depth_mult", "neck.necks.0.depth_mult"),
    ("max_num_bins", "transformer.heads.bins"),
    ("reg_scale", "transformer.heads.reg_scale"),
    ("up", "transformer.heads.up"),
)


def _family(name: str, recipe: str, prefix: str, fields: tuple[tuple[str, str], ...], width: str = "d_model") -> Family:
    processor = {"DabDetr": "ConditionalDetr", "RTDetrV2": "RTDetr", "DFine": "RTDetr"}.get(prefix, prefix)
    return Family(name, f"{prefix}ForObjectDetection", f"{processor}ImageProcessor", recipe, fields, width)


FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        _family("detr", "detr/detr_r50_500ep.py", "Detr", _DENSE),
        _family("conditional_detr", "conditional_detr/conditional_detr_r50_50ep.py", "ConditionalDetr", _DENSE),
        _family("dab-detr", "dab_detr/dab_detr_r50_50ep.py", "DabDetr", _DENSE, width="hidden_size"),
        _family("deformable_detr", "deformable_detr/deformable_detr_r50_50ep.py", "DeformableDetr", _DEFORMABLE),
        _family("rt_detr", "rt_detr/rtdetr_r50_72ep.py", "RTDetr", _RT),
        _family("rt_detr_v2", "rt_detr_v2/rtdetrv2_r50_72ep.py", "RTDetrV2", _RT),
        _family("d_fine", "dfine/dfine_hgnetv2_l_80ep.py", "DFine", _FINE),
    )
}
DEFORMABLE_RECIPES = {  # by two stages, refinement
    (False, False): "deformable_detr/deformable_detr_r50_50ep.py",
    (False, True): "deformable_detr/deformable_detr_refine_r50_50ep.py",
    (True, True): "deformable_detr/deformable_detr_two_stage_r50_50ep.py",
}
_DEFAULTS: Json = {
    "d_model": 256,
    "hidden_size": 256,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "num_feature_levels": 4,
    "encoder_n_points": 4,
    "decoder_n_points": 4,
    "dropout": 0.1,
    "activation_function": "relu",
    "num_queries": 300,
}
_DEFAULTS_OF: Mapping[str, Json] = {
    "detr": {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "num_queries": 100},
    "conditional_detr": {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048},
    "dab-detr": {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "activation_function": "prelu"},
    "deformable_detr": {"encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024},
    **{
        key: {
            "encoder_layers": 1,
            "encoder_hidden_dim": 256,
            "encoder_ffn_dim": 1024,
            "encoder_activation_function": "gelu",
            "activation_function": "silu",
            "hidden_expansion": 1.0,
            "num_feature_levels": 3,
            "decoder_ffn_dim": 1024,
            "decoder_activation_function": "relu",
            "depth_mult": 1.0,
            "max_num_bins": 32,
            "reg_scale": 4.0,
            "up": 0.5,
        }
        for key in ("rt_detr", "rt_detr_v2", "d_fine")
    },
}
_FIXED: Json = {
    "position_embedding_type": "sine",
    "normalize_before": False,
    "query_dim": 4,
    "keep_query_pos": False,
    "learn_initial_query": False,
    "with_box_refine": True,
    "decoder_offset_scale": 0.5,
    "num_channels": 3,
    "layer_scale": 1.0,
    "top_prob_values": 4,
    "lqe_hidden_dim": 64,
    "lqe_layers": 2,
}
"""What our models have one way only; a config.json that says otherwise is refused. (Deformable DETR has both ways of
refinement.)"""
_SAMPLING = {"default": "bilinear", "discrete": "discrete"}


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A config.json.

    Raises:
        TransformersConfigError: it is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TransformersConfigError(f"{os.fspath(path)}: cannot be read as a config.json: {error}") from error
    if not isinstance(content, dict):
        raise TransformersConfigError(f"{os.fspath(path)}: is no config.json but a {type(content).__name__}")
    return content


def config_of_json(content: Json, where: str) -> DictConfig:
    """Our config for a model of transformers; the number of classes is left open.

    Args:
        content: of config.json.
        where: its name, for messages.

    Raises:
        TransformersConfigError: it is another model, or has an option that our models do not have.
    """
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise TransformersConfigError(
            f"{where}: is a {kind}, which is not one of ours; there is {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[kind]
    values = {**_DEFAULTS, **_DEFAULTS_OF[kind], **{k: v for k, v in content.items() if v is not None}}
    refine, two_stage = bool(values.get("with_box_refine", False)), bool(values.get("two_stage", False))
    for key, value in _FIXED.items():
        if not (key == "with_box_refine" and kind == "deformable_detr") and values.get(key, value) != value:
            raise TransformersConfigError(f"{where}: {key} is {values[key]!r}, which our models do not have")
    recipe = family.recipe
    if kind == "deformable_detr":
        if (two_stage, refine) not in DEFORMABLE_RECIPES:
            raise TransformersConfigError(f"{where}: two stages without refinement are no model of ours")
        recipe = DEFORMABLE_RECIPES[two_stage, refine]
        values["num_queries"] = values.get("two_stage_num_proposals", 300) if two_stage else values["num_queries"]
    config = get_config(recipe)
    model = config.model
    for theirs, ours in family.fields:
        OmegaConf.update(model, ours, values[theirs])
    _set_width(model, kind, values[family.width])
    if kind == "d_fine":
        if values.get("eval_idx", -1) not in (-1, values["decoder_layers"] - 1):
            raise TransformersConfigError(f"{where}: eval_idx is {values['eval_idx']}; our models run all layers there")
        if not set_fine(model, values):
            found = values.get("backbone_config") or {}
            raise TransformersConfigError(f"{where}: its backbone ({found.get('model_type')}) is none of ours")
        _set_sampling(model, values)
    elif kind.startswith("rt_detr"):
        _set_rt_backbone(model, values.get("backbone_config") or {}, where)
        _set_sampling(model, values)
    else:
        _set_resnet(model, values, where)
    if kind == "dab-detr":
        model.transformer.decoder.eps = 1e-5
        model.transformer.query_source.num_patterns = values.get("num_patterns", 0)
        model.transformer.position_embedding.temperature = values.get("temperature_height", 20)
    return config


def _set_sampling(model: DictConfig, values: Json) -> None:
    model.transformer.decoder.layer.sampling = _SAMPLING.get(values.get("decoder_method", "default"))


def _set_width(model: DictConfig, kind: str, width: int) -> None:
    model.transformer.embed_dim = width
    if kind.startswith("rt_detr") or kind == "d_fine":
        model.transformer.decoder.query_position.hidden_dim = 2 * width
    else:
        model.transformer.position_embedding.num_features = width // 2


def _set_resnet(model: DictConfig, values: Json, where: str) -> None:
    """The plain ResNets, of timm or their own."""
    backbone = values.get("backbone_config") or {}
    name = values.get("backbone") or backbone.get("backbone")
    depths = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
    if name is None and backbone.get("model_type") == "resnet":
        found = depths.get(tuple(backbone.get("depths", (3, 4, 6, 3))))
        name = f"resnet{found}" if found and backbone.get("layer_type", "bottleneck") == "bottleneck" else None
    name = "resnet50" if name is None and not backbone else name
    depth = {f"resnet{number}": number for number in (18, 34, 50, 101, 152)}.get(str(name).removeprefix("microsoft/"))
    if depth is None:
        raise TransformersConfigError(
            f"{where}: its backbone ({name or backbone.get('model_type')}) is no ResNet of ours"
        )
    stages = model.backbone.stages
    stages.depth = depth
    if depth < 50:
        stages.pop("stride_in_1x1")
        model.neck.in_channels = [channels // 4 for channels in model.neck.in_channels]
    if values.get("dilation") or backbone.get("output_stride") == 16:
        from ..modeling.backbone import dilated_stages

        stages._target_ = dilated_stages


_RT_DEPTHS = {(2, 2, 2, 2): "resnet18d", (3, 4, 6, 3): "resnet50d", (3, 4, 23, 3): "resnet101d"}


def _set_rt_backbone(model: DictConfig, backbone: Json, where: str) -> None:
    depths = tuple(backbone.get("depths") or (3, 4, 6, 3))
    basic = backbone.get("layer_type", "bottleneck") == "basic"
    name = {(3, 4, 6, 3): "resnet34d"}.get(depths, _RT_DEPTHS.get(depths)) if basic else _RT_DEPTHS.get(depths)
    if name is None or backbone.get("model_type", "rt_detr_resnet") != "rt_detr_resnet":
        raise TransformersConfigError(f"{where}: its backbone ({backbone.get('model_type')}, {depths}) is none of ours")
    model.backbone.name = name
    if basic:
        model.backbone.update(frozen_norm=False, freeze_at=0)
    model.neck.necks[0].in_channels = [128, 256, 512] if basic else [512, 1024, 2048]


_TRAINING_ONLY = {
    "dropout",
    "drop_path",
    "checkpoint_activations",
    "look_forward_twice",
    "freeze_at",
    "frozen_norm",
    "pretrained",
    "norm_frozen",
    "denoising",
    "supervise",
    "initial_size",
    "zero_boxes",
    "encoder_classes",
    "num_classes",
    "eps",
}
"""Keys of ours that evaluation does not depend on; ``eps`` bounds references, at the border only."""


def json_of_config(config: DictConfig, kind: str, labels: Mapping[int, str]) -> dict[str, Any]:
    """The config.json for a model of ours.

    Args:
        config: ours, with its ``model``.
        kind: of `FAMILIES`, or "rtdetr" for whichever of the two it is.
        labels: names by row of the class head.

    Raises:
        TransformersConfigError: transformers cannot say what the config says, naming the key.
    """
    model = config.model
    if kind == "rtdetr":
        kind = (
            "rt_detr_v2" if OmegaConf.select(model, "transformer.decoder.layer.sampling") == "discrete" else "rt_detr"
        )
    family = FAMILIES[kind]
    content: dict[str, Any] = {"model_type": kind, "architectures": [family.architecture]}
    content |= {theirs: _plain(OmegaConf.select(model, ours)) for theirs, ours in family.fields}
    content[family.width] = int(model.transformer.embed_dim)
    content = {key: value for key, value in content.items() if value is not None}
    content |= _backbone_json(model, kind)
    if kind == "deformable_detr":
        two_stage = _name(model.transformer.query_source.get("_target_")) == "TwoStageQueries"
        content |= {"two_stage": two_stage, "with_box_refine": bool(model.transformer.decoder.get("refine"))}
        content |= {"two_stage_num_proposals": content["num_queries"]} if two_stage else {}
    if kind == "dab-detr":
        content["num_patterns"] = int(model.transformer.query_source.get("num_patterns") or 0)
        content |= dict.fromkeys(
            ("temperature_height", "temperature_width"), _plain(model.transformer.position_embedding.temperature)
        )
    if kind in ("rt_detr_v2", "d_fine"):
        sampling = model.transformer.decoder.layer.get("sampling", "bilinear")
        content["decoder_method"] = {v: k for k, v in _SAMPLING.items()}[sampling]
    content["id2label"] = {str(row): name for row, name in labels.items()}
    content["label2id"] = {name: row for row, name in labels.items()}
    _require_the_same(model, config_of_json(content, "config.json").model)
    return content


def _backbone_json(model: DictConfig, kind: str) -> dict[str, Any]:
    backbone = model.backbone
    if kind == "d_fine":
        content = fine_json(model)
        if content is None:
            raise TransformersConfigError(f"the backbone {backbone.get('name')} is none that transformers' D-FINE has")
        return content
    if kind.startswith("rt_detr"):
        depths = {"resnet34d": (3, 4, 6, 3), **{name: depths for depths, name in _RT_DEPTHS.items()}}
        name = backbone.get("name")
        if name not in depths:
            raise TransformersConfigError(f"the backbone {name} is none that transformers' RT-DETR has")
        basic = name in ("resnet18d", "resnet34d")
        sizes = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
        inner = {
            "model_type": "rt_detr_resnet",
            "depths": list(depths[name]),
            "hidden_sizes": sizes,
            "layer_type": "basic" if basic else "bottleneck",
            "out_features": ["stage2", "stage3", "stage4"],
        }
        width = model.neck.necks[0].out_channels
        return {"backbone_config": inner, "encoder_in_channels": sizes[1:], "decoder_in_channels": [width] * 3}
    depth = OmegaConf.select(backbone, "stages.depth")
    if depth is None:
        raise TransformersConfigError(
            f"the backbone {_name(backbone.get('_target_'))} is no ResNet, and has no names there"
        )
    levels = OmegaConf.select(model, "transformer.num_levels")
    return {
        "backbone": f"resnet{depth}",
        "use_timm_backbone": True,
        "use_pretrained_backbone": False,
        "dilation": _name(backbone.stages.get("_target_")) == "dilated_stages",
        **({"num_feature_levels": levels} if kind == "deformable_detr" else {}),
    }


def _require_the_same(ours: DictConfig, again: DictConfig) -> None:
    """Refuse what was lost on the way to config.json and back."""
    for part in ("backbone", "neck", "transformer", "score"):
        there, back = dict(_leaves(ours.get(part), part)), dict(_leaves(again.get(part), part))
        for key in sorted(there.keys() | back.keys()):
            one, other = there.get(key), back.get(key)
            if one != other and (one or other) and not any(name in _TRAINING_ONLY for name in key.split(".")):
                raise TransformersConfigError(
                    f"transformers has no such model: model.{key} is {one}, and would be {other} there"
                )


def _leaves(node: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(node, DictConfig):
        node = {name: node[name] for name in node}
    elif OmegaConf.is_config(node):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        return [leaf for name, inner in node.items() for leaf in _leaves(inner, f"{key}.{name}")]
    return [(key, _name(node) if key.endswith("_target_") else _plain(node))]


def _plain(value: Any) -> Any:
    return (
        float(value)
        if isinstance(value, float)
        else OmegaConf.to_container(value)
        if OmegaConf.is_config(value)
        else value
    )


def _name(target: str | Callable[..., Any] | None) -> str | None:
    """The last part of what a node calls."""
    if target is None or isinstance(target, str):
        return None if target is None else target.rpartition(".")[2]
    return getattr(target, "__name__", str(target))

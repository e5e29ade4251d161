"""A folder that transformers' ``from_pretrained`` reads: weights, config, and how images are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hdetr_d2.checkpoint.class_heads import ClassHeads, Scoring
from hdetr_d2.checkpoint.names import detr, dfine, dino, rtdetr
from hdetr_d2.model_zoo.transformers_config import FAMILIES, TransformersConfigError, json_of_config
from hdetr_d2.output import save_weights

from .source import Described
from .writing import write_json


def config_json(described: Described, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config.json of a model of ours.

    Args:
        described: the model.
        state: its weights in our names.

    Raises:
        TransformersConfigError: transformers has no such model.
    """
    heads = ClassHeads.of(state, Scoring.of_config(described.cfg.model))
    names, ids = described.description.class_names, described.description.category_ids
    rows = ids if heads.num_classes != len(names) else range(len(names))
    labels = dict.fromkeys(range(heads.num_classes), "N/A") | dict(zip(rows, names))
    return json_of_config(described.cfg, _kind(state), labels)


def _kind(state: Mapping[str, Tensor]) -> str:
    if dfine.is_dfine(state):
        return "d_fine"
    if rtdetr.is_rtdetr(state):
        return "rtdetr"
    model = detr.model_of_ours(state) or dino.model_of_ours(state) or "deformable_detr"
    kind = model.replace("dab_detr", "dab-detr")
    if kind not in FAMILIES:
        raise TransformersConfigError(f"transformers has no {model}; it has {', '.join(sorted(FAMILIES))}")
    return kind


def processor_json(described: Described, model_type: str) -> dict[str, Any]:
    """The preprocessor_config.json: how images are prepared."""
    description = described.description
    mean, std = (list(value) for value in (description.pixel_mean, description.pixel_std))
    content: dict[str, Any] = {
        "image_processor_type": FAMILIES[model_type].processor,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": any(mean) or any(value != 255 for value in std),
        "image_mean": [value / 255 for value in mean],
        "image_std": [value / 255 for value in std],
        "do_pad": not model_type.startswith(("rt_detr", "d_fine")),
    }
    rule = description.resize
    if rule.get("rule") == "shortest_edge":
        content["size"] = {"shortest_edge": rule["short_side"], "longest_edge": rule["max_long_side"]}
    elif rule.get("rule") == "square":
        content["size"] = {"height": rule["size"], "width": rule["size"]}
    return content


def write_folder(
    folder: Path, weights: Mapping[str, Any], config: Mapping[str, Any], processor: Mapping[str, Any]
) -> None:
    """Write all three; the config last, so that a folder with one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.safetensors", weights)
    write_json(folder / "preprocessor_config.json", processor)
    write_json(folder / "config.json", config)

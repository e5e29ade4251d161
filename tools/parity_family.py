"""Compare the models of the DETR family with files from their authors' code; used by tools/check_parity.py."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from parity_common import (
    Check,
    GivenFeatures,
    NotSupportedError,
    Theirs,
    evaluation_checks,
    read_targets,
    training_checks,
)
from torch import Tensor

from hdetr_d2.checkpoint.names import detr, dino, mr_ms_detr
from hdetr_d2.checkpoint.renaming import Names
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.denoising import DenoisingQueries, NoisedTargets
from hdetr_d2.structures import Targets

FILES = {
    "detr": "detr",
    "dab_detr": "dab_detr",
    "dab_deformable_detr": "dab_deformable_detr",
    "dn_detr": "dn_detr",
    "dn_deformable_detr": "dn_deformable_detr",
    "dino": "dino",
    "mr_detr_deformable": "mr_detr",
    "mr_detr_dino": "mr_detr_dino",
    "ms_deformable_detr": "ms_detr",
}
"""The configuration of each model under configs/common/models."""


def names_of(model: str, config: Mapping[str, Any]) -> Names:
    """The authors' names."""
    layers = config["dec_layers"]
    if model == "detr":
        return detr.detr_names()
    if model in ("dab_detr", "dn_detr"):
        return detr.dab_detr_names()
    if model in ("dab_deformable_detr", "dn_deformable_detr"):
        return dino.dab_deformable_detr_names()
    if model == "dino":
        return dino.dino_names(layers)
    return mr_ms_detr.ms_detr_names(layers) if model == "ms_deformable_detr" else mr_ms_detr.mr_detr_names(layers)


def build_model(config: Mapping[str, Any]) -> DETR:
    """The model that ``config.json`` describes, from the same configuration files that training uses."""
    model = get_config(f"common/models/{FILES[config['model']]}.py").model
    model.num_classes = config["num_classes"]
    model.num_detections = config["topk"] or config["num_queries"]
    channels = config["channels"]
    model.backbone = L(GivenFeatures)(channels=channels)
    model.neck.update(in_channels=channels, in_features=[f"res{i + 3}" for i in range(len(channels))])
    transformer = model.transformer
    transformer.encoder.num_layers = config["enc_layers"]
    transformer.encoder.layer.update(hidden_dim=config.get("ffn", config.get("dim_feedforward")), dropout=0.0)
    transformer.decoder.num_layers = config["dec_layers"]
    transformer.query_source.num_queries = config["num_queries"]
    if config.get("num_patterns"):
        transformer.query_source.num_patterns = config["num_patterns"]
    if "routes" in transformer.decoder.layer:
        transformer.decoder.layer.routes[0].num_instructions = config["num_instructions"]
    if "matcher" in model.supervision:
        cap = config.get("o2m_positive_cap")
        if cap is None:
            cap = int(config["o2m_positive_fraction"] * config["o2m_batch_size_per_image"])
        model.supervision.matcher.update(
            iou_weight=config["o2m_iou_weight"],
            threshold=config["o2m_threshold"],
            k=config["o2m_k"],
            max_positives=cap,
        )
    if "denoising" in transformer and config["model"] == "dino":
        transformer.denoising.update(budget=config["dn_number"], small_budget_is_groups=True)
    elif "denoising" in transformer and config["model"] == "mr_detr_dino":
        transformer.denoising.budget = config["dn_number"]
    model.fuse_layers = config["model"].startswith("mr_detr")
    return instantiate(model)


def stored_noise(denoising: DenoisingQueries, data: Mapping[str, Tensor]) -> NoisedTargets:
    """The noised targets of the file, with our matches for them."""
    ours = DenoisingQueries.noise(denoising, read_targets(data))
    labels = data["dn/labels"]
    return replace(
        ours,
        labels=labels.masked_fill(labels < 0, denoising.num_classes),
        boxes=torch.where(data["dn/valid"][..., None], data["dn/boxes_cxcywh"], ours.boxes),
        valid=data["dn/valid"],
        positive=data["dn/is_positive"],
    )


def feed_noise(model: DETR, data: Mapping[str, Tensor]) -> None:
    """Make denoising take the noise of the file in place of its own."""
    denoising = model.transformer.denoising
    if denoising is None:
        return

    def noise(targets: list[Targets]) -> NoisedTargets:
        del targets
        return stored_noise(denoising, data)

    denoising.noise = noise


def loss_name(model: str, key: str, num_layers: int) -> str:
    """Their key of one of our losses ``loss_<kind>[_<layer>|_enc][_<group>]``."""
    match = re.fullmatch(r"loss_(ce|bbox|giou)(?:_(\d+|enc))?(?:_(\w+))?", key)
    assert match, key
    kind, layer, group = match.groups()
    if model.startswith("mr_detr"):
        kind = "class" if kind == "ce" else kind
        route = {"instructed": "group", "own_ffn": "sep", "dn": "dn", "dn_instructed": "dn_o2m", "dn_own_ffn": "dn_sep"}
        if layer == "enc":
            return f"loss_{kind}_enc" + ("" if group is None else "_o2m")
        if group in ("instructed", "own_ffn"):
            return f"loss_{kind}_{route[group]}_{num_layers - 1 if layer is None else layer}"
        return "_".join(part for part in (f"loss_{kind}", group and route[group], layer) if part)
    if model.startswith("dn_") and group == "dn":
        return "_".join(part for part in (f"tgt_loss_{kind}", layer) if part)
    if model == "dino":
        layer = "interm" if layer == "enc" else layer
        return "_".join(part for part in (f"loss_{kind}", group, layer) if part)
    if model == "ms_deformable_detr" and group is not None:
        return "_".join(part for part in (f"loss_{kind}", layer, "o2m") if part)
    return key


def output_name(model: str, group: str) -> str:
    """Where the file has the predictions of one of our groups."""
    if model.startswith("mr_detr"):
        names = {
            "instructed": "route/group",
            "own_ffn": "route/sep",
            "enc_instructed": "train/enc_o2m",
            "dn": "dn/route/o2o",
            "dn_instructed": "dn/route/group",
            "dn_own_ffn": "dn/route/sep",
        }
        return names.get(group, f"train/{group}")
    return "train/o2m" if model == "ms_deformable_detr" and group == "one2many" else f"train/{group}"


def check_family(data: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Check]:
    """All checks of one file.

    Raises:
        NotSupportedError: for a model that this project does not have.
    """
    name = config["model"]
    if name not in FILES:
        raise NotSupportedError(name)
    state = {key.removeprefix("sd/"): value for key, value in data.items() if key.startswith("sd/")}
    model = build_model(config)
    names = names_of(name, config)
    model.load_state_dict(names.apply(state))
    feed_noise(model, data)
    features = {f"res{i + 3}": data[f"in/feat{i}"] for i in range(len(config["channels"]))}
    sizes = [(int(height), int(width)) for height, width in data["in/image_sizes"]]
    inputs = (features, tuple(data["in/mask"].shape[-2:]), sizes)
    theirs = Theirs(
        gradients=partial(names.apply, to="theirs"),
        output=lambda group: output_name(name, group),
        loss=lambda key: loss_name(name, key, config["dec_layers"]),
    )
    yield from training_checks(model, data, inputs, theirs)
    yield from evaluation_checks(model, data, inputs)

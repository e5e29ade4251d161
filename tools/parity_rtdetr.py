"""Compare RT-DETR, RT-DETRv2 and DEIM with files from their authors' code; used by tools/check_parity.py."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from parity_common import (
    LOSS_TOLERANCE,
    OUTPUT_TOLERANCE,
    Check,
    GivenFeatures,
    Theirs,
    evaluation_checks,
    largest,
    output_checks,
    relative,
    training_checks,
)
from torch import Tensor

from hdetr_d2.checkpoint.names.rtdetr import from_rtdetr, rtdetr_names
from hdetr_d2.losses import MatchabilityAwareLoss, VarifocalLoss
from hdetr_d2.losses.classification import Positives
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.denoising import NoiseDraws
from hdetr_d2.modeling.deploy import deploy
from hdetr_d2.supervision import PRIMARY

CONFIGS = {"rtdetr": "rtdetr", "rtdetrv2": "rtdetr", "deim_rtdetrv2": "deim_rtdetrv2"}
"""The configuration of each model under configs/common/models."""

MODELS = {*CONFIGS, "mal_fixture"}
BLOCKS = ("", "rect/")
"""A file has everything twice, of square images and of others."""

GRADIENT = 1e-5  # absolute, of a loss in a logit


def build_model(config: Mapping[str, Any]) -> DETR:
    """The model that ``config.json`` describes, from the same configuration files that training uses."""
    model = get_config(f"common/models/{CONFIGS[config['model']]}.py").model
    model.num_classes = config["num_classes"]
    model.num_detections = config["topk"]
    model.backbone = L(GivenFeatures)(channels=config["channels"])
    hybrid = model.neck.necks[0]
    hybrid.update(
        in_channels=config["channels"],
        in_features=["res3", "res4", "res5"],
        out_channels=config["hidden_dim"],
        expansion=config["expansion"],
        depth_mult=config["depth_mult"],
        authors_positions=True,
    )
    hybrid.encoder.layer.update(num_heads=config["nhead"], hidden_dim=config["enc_ffn"])
    transformer = model.transformer
    transformer.embed_dim = config["hidden_dim"]
    transformer.query_source.num_queries = config["num_queries"]
    transformer.denoising.budget = config["num_denoising"]
    transformer.decoder.num_layers = config["dec_layers"]
    transformer.decoder.layer.update(
        num_heads=config["nhead"],
        hidden_dim=config["ffn"],
        num_points=config["num_points"],
        activation=config["activation"],
    )
    if config.get("cross_attn_method") == "discrete":
        transformer.decoder.layer.update(sampling="discrete", authors_clamp=True)
    if transformer.decoder.query_position.num_layers == 2:
        transformer.decoder.query_position.hidden_dim = 2 * config["hidden_dim"]
    model.criterion.classification.gamma = config["gamma"]
    return instantiate(model)


def loss_name(config: Mapping[str, Any], key: str) -> str:
    """Their key of one of our losses ``loss_<kind>[_<layer>|_enc][_dn]``."""
    match = re.fullmatch(r"loss_(ce|bbox|giou)(?:_(\d+))?(?:_(dn|enc))?", key)
    assert match, key
    kind, layer, group = match.groups()
    kind = config["losses"][0] if kind == "ce" else kind
    last = config["dec_layers"] - 1
    if group == "enc":
        return f"loss_{kind}_aux_{last}" if config["model"] == "rtdetr" else f"loss_{kind}_enc_0"
    if group == "dn":
        return f"loss_{kind}_dn_{last if layer is None else layer}"
    return f"loss_{kind}" if layer is None else f"loss_{kind}_aux_{layer}"


def feed_noise(model: DETR, data: Mapping[str, Tensor]) -> None:
    """Make denoising draw the random numbers of the file."""
    shift = data["dn/rand/part01"] * (2 * data["dn/rand/sign01"] - 1)
    draws = NoiseDraws(data["dn/rand/label_u"], data["dn/rand/new_label"], shift)

    def draw(num_images: int, num_slots: int) -> NoiseDraws:
        assert draws.flip.shape == (num_images, num_slots)
        return draws

    model.transformer.denoising.draw = draw  # type: ignore[union-attr, method-assign]


@torch.no_grad()
def map_checks(model: DETR, kind: str, data: Mapping[str, Tensor], inputs: tuple) -> Iterator[Check]:
    """Maps that the encoder gives the decoder."""
    for level, ours in enumerate(model.neck.necks[0](*inputs)):  # type: ignore[operator, union-attr, index]
        yield Check(f"{kind}/{level}", largest(ours, data[f"{kind}/{level}"]), OUTPUT_TOLERANCE)


def statistics_checks(model: DETR, names: Any, data: Mapping[str, Tensor]) -> Iterator[Check]:
    """Statistics of BatchNorm after one step."""
    ours = names.apply(model.state_dict(), to="theirs")
    for key, value in data.items():
        if key.startswith("bn_after/"):
            yield Check(key, largest(ours[key.removeprefix("bn_after/")], value), OUTPUT_TOLERANCE)


def deployment_checks(model: DETR, data: Mapping[str, Tensor], inputs: tuple) -> Iterator[Check]:
    """Maps and outputs of the re-parameterised model."""
    deploy(model)
    yield from map_checks(model, "deploy/enc_maps", data, inputs)
    with torch.no_grad():
        predictions, _ = model.predict(*inputs)
    yield from output_checks("deploy/eval", predictions[PRIMARY], data)


def check_rtdetr(data: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Check]:
    """All checks of one file."""
    if config["model"] == "mal_fixture":
        yield from loss_checks(data, config)
        return
    state = {key.removeprefix("sd/"): value for key, value in data.items() if key.startswith("sd/")}
    names = rtdetr_names(1 if config["model"] == "rtdetr" else 2)
    for prefix in BLOCKS:
        block = {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}
        model = build_model(config)
        model.load_state_dict(from_rtdetr(state))
        feed_noise(model, block)
        size = tuple(config["frames"][prefix])
        features = {f"res{i + 3}": block[f"in/feat{i}"].requires_grad_() for i in range(len(config["channels"]))}
        inputs = (features, size, [size] * len(config["ngt"]))
        theirs = Theirs(gradients=partial(names.apply, to="theirs"), loss=partial(loss_name, config))
        for result in block_checks(model, names, state, block, inputs, theirs):
            yield Check(prefix + result.name, result.difference, result.tolerance)


def block_checks(
    model: DETR, names: Any, state: Mapping[str, Tensor], data: Mapping[str, Tensor], inputs: tuple, theirs: Theirs
) -> Iterator[Check]:
    """Training, evaluation with the statistics from before it, and deployment, of one block."""
    yield from training_checks(model, data, inputs, theirs)
    for level, feature in enumerate(inputs[0].values()):
        key = f"grad_norm_in/feat{level}"
        yield Check(key, relative(feature.grad.norm().item(), data[key].item()), 1e-3)
    yield from statistics_checks(model, names, data)
    model.load_state_dict(from_rtdetr(state))
    yield from map_checks(model.train(), "enc_maps/bn_train", data, inputs)
    model.load_state_dict(from_rtdetr(state))
    yield from map_checks(model.eval(), "enc_maps/bn_eval", data, inputs)
    yield from evaluation_checks(model, data, inputs)
    yield from deployment_checks(model, data, inputs)


def loss_checks(data: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Check]:
    """Class losses and their gradients on given logits, matches and IoUs."""
    labels, rows, ious = [], [], []
    queries = data["in/logits"].shape[1]
    for image in range(len(data["in/logits"])):
        query, target = data[f"in/indices/{image}"]
        rows.append(image * queries + query)
        labels.append(data[f"in/labels/{image}"][target])
        ious.append(data[f"in/iou/{image}"])
    row, label, iou = torch.cat(rows), torch.cat(labels), torch.cat(ious)
    for index, case in enumerate(config["cases"]):
        if case["loss"] == "mal":
            loss: Any = MatchabilityAwareLoss(gamma=case["gamma"], alpha=case["mal_alpha"])
        else:
            loss = VarifocalLoss(gamma=case["gamma"], alpha=case["alpha"])
        logits = data["in/logits"].clone().requires_grad_()
        positives = Positives(torch.zeros_like(row), row, label, iou, None)
        value = loss(logits.flatten(0, 1)[None], positives).sum() / data["in/num_boxes"]
        value.backward()
        prefix = f"case/{index}"
        yield Check(f"{prefix}/loss", relative(value.item(), data[f"{prefix}/loss"].item()), LOSS_TOLERANCE)
        assert logits.grad is not None
        yield Check(f"{prefix}/grad_logits", largest(logits.grad, data[f"{prefix}/grad_logits"]), GRADIENT)

"""Tiny models of the whole family, for tests."""

from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf

from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import HybridBranch, HybridEpoch, HybridLayer, HybridProposals
from tests.conftest import NUM_CLASSES, PatchBackbone

CHANNELS = [16, 16, 32]
ONE_TO_ONE = [
    "detr",
    "conditional_detr",
    "deformable_detr",
    "deformable_detr_two_stage",
    "deformable_detr_plus_plus",
    "dab_detr",
    "dab_deformable_detr",
    "dn_detr",
    "dn_deformable_detr",
    "dino",
    "rtdetr",
    "rtdetrv2_discrete",
    "deim_rtdetrv2",
    "dfine",
]
"""Models that learn one-to-one, which hybrid matching can be put on."""
ONE_TO_MANY = [
    "h_deformable_detr",
    "mr_detr",
    "mr_detr_dino",
    "mr_detr_align",
    "ms_detr",
    "dac_detr",
    "group_detr",
    "relation_detr",
]
"""Models that learn one-to-many, or in several groups, somewhere already."""
DENOISED = [
    "dn_detr",
    "dn_deformable_detr",
    "dino",
    "rtdetr",
    "rtdetrv2_discrete",
    "deim_rtdetrv2",
    "dfine",
    "mr_detr_dino",
    "relation_detr",
]
SCHEMES = {
    "branch": L(HybridBranch)(num_queries=20, k=3),
    "epoch": L(HybridEpoch)(k=3, rho=0.5),
    "layer": L(HybridLayer)(k=3, num_one2many_layers=2),
}
OF_PROPOSALS = {
    "proposals": L(HybridProposals)(k=3),
    "branch, encoder": L(HybridBranch)(num_queries=20, k=3, encoder="one2many", encoder_k=2),
}
"""Schemes for two-stage models alone."""


def shrink(model: Any) -> None:
    """Make the config of any model tiny, in place, without changing which model it is."""
    transformer = model.transformer
    transformer.embed_dim = 32
    if transformer.position_embedding is not None:
        transformer.position_embedding.num_features = 16
    if transformer.encoder is not None:
        transformer.encoder.num_layers = 1
        transformer.encoder.layer.update(num_heads=4, hidden_dim=48, dropout=0.0)
    transformer.decoder.num_layers = 3
    transformer.decoder.layer.update(num_heads=4, hidden_dim=48, dropout=0.0)
    if "hidden_dim" in (transformer.decoder.get("query_position") or {}):
        transformer.decoder.query_position.hidden_dim = 40
    transformer.query_source.num_queries = 10
    if transformer.get("denoising") is not None and transformer.denoising.budget is not None:
        transformer.denoising.budget = 8
    if "route" in model.supervision:
        model.supervision.update(num_queries=20, k=3)
    if "num_groups" in model.supervision:
        model.supervision.num_groups = 3
    if "matcher" in model.supervision:
        model.supervision.matcher.update(threshold=0.2, k=3)
    model.num_detections = 10
    features = ["res3", "res4", "res5"]
    if "necks" in model.neck:
        hybrid, mapper = model.neck.necks
        hybrid.update(in_channels=CHANNELS, in_features=features, out_channels=48, depth_mult=0.34)
        hybrid.encoder.layer.update(num_heads=4, hidden_dim=48)
        mapper.in_channels = [48, 48, 48]
    else:
        taken = len(model.neck.in_channels)
        model.neck.update(in_channels=CHANNELS[-taken:], in_features=features[-taken:], num_groups=8)


def config_of(
    name: str,
    scheme: str | None = None,
    *,
    query_source: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> Any:
    """The config of a tiny model, with a hybrid scheme in place of its supervision where one is named.

    ``query_source`` and ``decoder`` are arguments that these take besides.
    """
    model = get_config(f"common/models/{name}.py").model
    shrink(model)
    model.transformer.query_source.update(query_source or {})
    model.transformer.decoder.update(decoder or {})
    model.num_classes = NUM_CLASSES
    model.backbone = L(PatchBackbone)(channels=CHANNELS)
    if scheme is not None:
        cost = model.supervision.get("cost")
        model.supervision = OmegaConf.create({**SCHEMES, **OF_PROPOSALS}[scheme], flags={"allow_objects": True})
        if cost is not None:
            model.supervision.cost = cost
    return model


def build(
    name: str,
    scheme: str | None = None,
    *,
    seed: int = 0,
    perturb: float = 0.1,
    query_source: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> DETR:
    """A tiny model whose parameters are all perturbed, so that zero-initialised weights hide nothing."""
    torch.manual_seed(seed)
    built: DETR = instantiate(config_of(name, scheme, query_source=query_source, decoder=decoder))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(perturb * torch.randn_like(parameter))
    return built

"""RT-DETR's configs made tiny."""

from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf

from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from tests.conftest import NUM_CLASSES, PatchBackbone


def shrink(model: Any) -> None:
    """Make a model config tiny, in place, without changing which variant it is."""
    model.num_classes = NUM_CLASSES
    model.backbone = L(PatchBackbone)(channels=[16, 16, 32])
    hybrid = model.neck.necks[0]
    hybrid.update(in_channels=[16, 16, 32], in_features=["res3", "res4", "res5"], out_channels=32)
    hybrid.encoder.layer.update(num_heads=4, hidden_dim=64)
    transformer = model.transformer
    transformer.embed_dim = 32
    transformer.query_source.num_queries = 10
    transformer.denoising.budget = 4
    transformer.decoder.num_layers = 3
    transformer.decoder.layer.update(num_heads=4, num_points=2, hidden_dim=64)
    transformer.decoder.query_position.hidden_dim = 64


def build(name: str = "rtdetr", *, seed: int = 0, **changes: Any) -> DETR:
    """A tiny model of ``configs/common/models/<name>.py`` with weights and statistics that hide nothing.

    Args:
        name: of the file.
        seed: of the weights.
        changes: by dotted key.
    """
    config = get_config(f"common/models/{name}.py").model
    shrink(config)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    torch.manual_seed(seed)
    model = instantiate(config)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.mul_(0.5 + torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model

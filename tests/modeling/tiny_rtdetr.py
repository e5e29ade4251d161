"""Tiny RT-DETRs whose BatchNorms, too, hide nothing."""

from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf

from hdetr_d2.modeling import DETR
from tests.modeling.family import config_of


def build(name: str = "rtdetr", *, seed: int = 0, **changes: Any) -> DETR:
    """A tiny model of ``configs/common/models/<name>.py`` with drawn weights and statistics.

    Args:
        name: of the file.
        seed: of the weights.
        changes: by dotted key.
    """
    config = config_of(name)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    torch.manual_seed(seed)
    model: DETR = instantiate(config)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.mul_(0.5 + torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model

"""Building a model by hand, as Detectron2's users do."""

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from torch import nn

from hdetr_d2.model_zoo import config_names, get_config
from hdetr_d2.modeling.building import BuildError


@pytest.mark.parametrize("name", [*config_names()[::20], "stewart/reinspect_generated.py"])
def test_a_recipe_says_what_is_missing_and_is_built_once_it_is_given(name: str) -> None:
    cfg = get_config(name)
    with torch.device("meta"):
        with pytest.raises(BuildError, match=r"num_classes is missing.*cfg\.dataset\.num_classes"):
            instantiate(cfg.model)
        cfg.dataset.num_classes = 1
        if "image_counts" in cfg.dataset:
            cfg.dataset.image_counts = [1]
        assert isinstance(instantiate(cfg.model), nn.Module)


@pytest.mark.parametrize("name", ["DETR", "ReInspect"])
def test_a_yacs_config_is_answered_with_the_lines_that_build_the_model(name: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = name
    cfg.MODEL.DEVICE = "cpu"
    with pytest.raises(BuildError, match=rf"{name} is built from a LazyConfig.*instantiate\(cfg\.model\)"):
        build_model(cfg)

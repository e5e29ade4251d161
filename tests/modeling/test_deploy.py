"""A model that is optimised for inference detects what it did before, whichever of the family it is."""

from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import BasicStem, ResNet
from torch import nn

import hdetr_d2
from hdetr_d2.modeling import DETR
from hdetr_d2.supervision import PRIMARY
from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, build, config_of

IMAGES = ((64, 96, 3), (96, 64, 2))  # each is padded


@torch.no_grad()
def outputs(model: DETR, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and boxes of the last layer."""
    images = model.preprocess(batch)
    size = (int(images.tensor.shape[-2]), int(images.tensor.shape[-1]))
    predictions, _ = model.predict(model.backbone(images.tensor), size, images.image_sizes)
    return predictions[PRIMARY].logits[-1], predictions[PRIMARY].boxes[-1]


def perturb_norms(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            part.running_mean.uniform_(-0.2, 0.2, generator=generator)
            part.running_var.uniform_(0.6, 1.4, generator=generator)


@pytest.mark.parametrize("name", [*ONE_TO_ONE, *ONE_TO_MANY])
def test_an_optimised_model_computes_the_same(name: str, draw_batch: Any) -> None:
    batch = draw_batch(*IMAGES)
    model = build(name)
    perturb_norms(model)
    model = model.double().eval()  # so that no rounding changes which proposals are the best
    expected = outputs(model, batch)
    assert hdetr_d2.optimize(model) is model
    for found, wanted in zip(outputs(model, batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_an_optimised_model_on_a_resnet_has_no_norms_and_the_same_detections(draw_batch: Any) -> None:
    batch = draw_batch(*IMAGES)
    torch.manual_seed(0)
    cfg = config_of("h_deformable_detr")
    cfg.backbone = L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
    )
    cfg.neck.in_channels = [128, 256, 512]
    model: DETR = instantiate(cfg)
    perturb_norms(model)
    model.eval()
    with torch.no_grad():
        expected = model(batch)
        found = hdetr_d2.optimize(model)(batch)
    assert not any(isinstance(part, (FrozenBatchNorm2d, nn.BatchNorm2d)) for part in model.modules())
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours["instances"].scores, wanted["instances"].scores, rtol=1e-5, atol=1e-5)

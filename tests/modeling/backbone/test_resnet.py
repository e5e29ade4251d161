"""The dilated ResNet against torchvision's, with the same weights."""

from typing import Any

import pytest
import torch
import torchvision
from detectron2.modeling.backbone import BasicStem, ResNet

from hdetr_d2.checkpoint.names.backbones import backbone_from_torchvision
from hdetr_d2.modeling.backbone import dilated_stages


def build(depth: int) -> ResNet:
    stages = dilated_stages(depth=depth, stride_in_1x1=False, norm="FrozenBN")
    return ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res4", "res5"], freeze_at=2).eval()


def test_the_last_stage_gives_torchvisions_features_at_half_the_stride() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True]).eval()
    with torch.no_grad():
        for name, buffer in theirs.named_buffers():
            if name.endswith("running_var"):
                buffer.mul_(1 + torch.rand_like(buffer))
    state = backbone_from_torchvision(theirs.state_dict()).state
    ours = build(50)
    ours.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()})
    taken: dict[str, Any] = {}
    theirs.layer4.register_forward_hook(lambda module, inputs, output: taken.update(res5=output))
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        theirs(image)
        features = ours(image)
    assert features["res5"].shape[-2:] == features["res4"].shape[-2:] == (6, 8)
    assert features["res5"].std() > 0.01
    torch.testing.assert_close(features["res5"], taken["res5"], atol=1e-4, rtol=1e-4)


def test_strides_and_freezing_are_what_the_plain_resnet_has() -> None:
    with torch.device("meta"):
        model = build(101)
    assert {name: shape.stride for name, shape in model.output_shape().items()} == {"res4": 16, "res5": 16}
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}
    assert len(model.res4) == 23


def test_a_resnet_without_bottlenecks_is_refused() -> None:
    with pytest.raises(ValueError, match="ResNet-18 has no bottleneck blocks"):
        dilated_stages(depth=18)

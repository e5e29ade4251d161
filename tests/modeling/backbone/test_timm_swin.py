"""timm's Swin in a detector; torchvision's, which pads as the official detection code does, is the oracle."""

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from hdetr_d2.modeling.backbone import TimmBackbone

FEATURES = ("res2", "res3", "res4", "res5")


def of_torchvision(net: nn.Module) -> dict[str, Tensor]:
    """The state dict under the names of ``TimmBackbone``."""
    state = {}
    for key, value in net.state_dict().items():
        key = key.replace("features.0.0.", "body.patch_embed.proj.").replace("features.0.2.", "body.patch_embed.norm.")
        key = key.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        found = re.match(r"features\.(\d)\.(.*)", key)
        if found:
            stage, part = divmod(int(found[1]), 2)
            key = f"body.layers_{stage}.{'blocks' if part else 'downsample'}.{found[2]}"
        if not key.startswith(("norm.", "head.")) and "relative_position_index" not in key:
            state[key] = value
    return state


@pytest.mark.parametrize("size", [(448, 448), (320, 384), (333, 501)])
@torch.no_grad()
def test_swin_computes_what_torchvisions_does_on_images_of_any_size(size: tuple[int, int]) -> None:
    net = torchvision.models.swin_t().eval()
    ours = TimmBackbone(name="swin_tiny_patch4_window7_224", out_features=FEATURES).eval()
    ours.load_state_dict(of_torchvision(net))
    image = torch.randn(1, 3, *size)
    x = F.pad(image, (0, -size[1] % 4, 0, -size[0] % 4))
    expected = []
    for part in net.features:
        x = part(x)
        expected.append(x.permute(0, 3, 1, 2))
    for feature, stage in zip(ours(image).values(), expected[1::2]):
        torch.testing.assert_close(feature, stage, rtol=1e-5, atol=1e-5)

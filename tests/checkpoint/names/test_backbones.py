"""Weights of classification networks in our backbones, with the networks' own code as the oracle."""

import re

import pytest
import timm
import torch
import torchvision
from detectron2.config import instantiate
from torch import Tensor, nn

from hdetr_d2.checkpoint.names.backbones import (
    backbone_from_detectron2,
    backbone_from_swin,
    backbone_from_torchvision,
    backbone_to_detectron2,
    backbone_to_swin,
    backbone_to_torchvision,
)
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling.backbone import TimmBackbone

SWIN = "swin_tiny_patch4_window7_224"


def shaken(module: nn.Module) -> nn.Module:
    """With statistics and norms that differ from each other, so that swapped ones are noticed."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))
    return module.eval()


def our_resnet() -> nn.Module:
    return instantiate(get_config("common/models/deformable_detr.py").model.backbone).eval()


def unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("backbone."): value for key, value in state.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


@torch.no_grad()
def features_of_torchvision(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
    features = {}
    for name, stage in (("res3", net.layer2), ("res4", net.layer3), ("res5", net.layer4)):
        features[name] = x = stage(x)
    return features


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_resnet_computes_the_same_features_here(library: str) -> None:
    net = torchvision.models.resnet50() if library == "torchvision" else timm.create_model("resnet50")
    oracle = shaken(torchvision.models.resnet50())
    oracle.load_state_dict(shaken(net).state_dict())
    converted = backbone_from_torchvision(net.state_dict())
    ours = our_resnet()
    ours.load_state_dict(unprefixed(converted.state))
    x = torch.randn(1, 3, 65, 96)
    with torch.no_grad():
        features = ours(x)
    for name, expected in features_of_torchvision(oracle, x).items():
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(features[name], expected, rtol=1e-4, atol=1e-4)
    assert {"fc.weight", "fc.bias"} == {key for key in converted.left_out if "num_batches" not in key}


def test_a_resnet_goes_to_torchvision_and_back() -> None:
    state = {f"backbone.{key}": value for key, value in shaken(our_resnet()).state_dict().items()}
    theirs = backbone_to_torchvision({**state, "neck.weight": torch.zeros(1)})
    net = torchvision.models.resnet50()
    assert not net.load_state_dict(theirs, strict=False).unexpected_keys
    assert_equal(backbone_from_torchvision(theirs).state, state)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet50d", {}, r"torchvision's ResNet.*layer1\.0\.downsample\.2\.weight"),
        ("resnet18", {"stem_type": "deep"}, "no plain ResNet"),
    ],
)
def test_resnets_of_another_build_are_refused(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbone_from_torchvision(timm.create_model(name, **arguments).state_dict())


def test_another_network_is_refused_by_its_keys() -> None:
    with pytest.raises(ValueError, match=r"torchvision's ResNet.*features\.0"):
        backbone_from_torchvision({"features.0.weight": torch.zeros(1)})


def test_torchvisions_weights_in_detectron2s_file_are_taken_as_they_are() -> None:
    state = {f"backbone.{key}": value for key, value in shaken(our_resnet()).state_dict().items()}
    checkpoint = backbone_to_detectron2(state)
    with_classifier = {**checkpoint["model"], "stem.fc.weight": torch.zeros(1000, 2048)}
    renamed = backbone_from_detectron2(checkpoint, with_classifier)
    assert_equal(renamed.state, state)
    assert renamed.left_out == ("stem.fc.weight",)
    in_a_detector = {f"backbone.bottom_up.{key}": value for key, value in checkpoint["model"].items()}
    assert_equal(backbone_from_detectron2(checkpoint, in_a_detector).state, state)


@pytest.mark.parametrize("author", ["Caffe2", "Detectron2 Model Zoo"])
def test_weights_for_bgr_images_and_stride_in_1x1_are_refused(author: str) -> None:
    with pytest.raises(ValueError, match=f"{author}.*stride in 1x1"):
        backbone_from_detectron2({"__author__": author}, {"stem.conv1.weight": torch.zeros(64, 3, 7, 7)})


def test_msras_names_are_refused_without_an_author_too() -> None:
    with pytest.raises(ValueError, match="MSRA"):
        backbone_from_detectron2({}, {"conv1_w": torch.zeros(64, 3, 7, 7), "res2_0_branch2a_w": torch.zeros(1)})


def official_names(classifier: nn.Module) -> dict[str, Tensor]:
    """A timm Swin's weights as the official classification code files them, by timm's account of the difference."""
    state = {}
    for key, value in classifier.state_dict().items():
        key = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key)
        state[key.replace("head.fc.", "head.")] = value
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return state


def test_official_swin_weights_compute_the_features_of_timms_own_classifier() -> None:
    # At 448 pixels every stage is larger than a window; a single window is shifted in detectors, not in classifiers.
    net = shaken(timm.create_model(SWIN, img_size=448))
    official = official_names(net)
    reread = timm.models.swin_transformer.checkpoint_filter_fn(dict(official), net)
    assert_equal(reread, net.state_dict())  # timm's own reader agrees that these are the official names
    renamed = backbone_from_swin(official)
    ours = TimmBackbone(name=SWIN).eval()
    ours.load_state_dict(unprefixed(renamed.state))
    x = torch.randn(1, 3, 448, 448)
    with torch.no_grad():
        expected = net.layers(net.patch_embed(x)).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours(x)["res5"], expected, rtol=1e-4, atol=1e-4)
    buffers = {"layers.0.blocks.0.attn.relative_position_index", "layers.0.blocks.1.attn_mask"}
    assert set(renamed.left_out) == buffers | {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_swin_with_the_norms_of_detectors_goes_to_official_names_and_back() -> None:
    ours = TimmBackbone(name=SWIN, output_norm=True, model_args={"embed_dim": 24})
    state = {f"backbone.{key}": value for key, value in shaken(ours).state_dict().items()}
    official = backbone_to_swin(state)
    for name in ("norm1.weight", "norm3.bias", "layers.2.downsample.reduction.weight", "patch_embed.proj.weight"):
        assert name in official
    assert_equal(backbone_from_swin(official).state, state)


def test_a_state_that_is_no_swin_is_refused() -> None:
    with pytest.raises(ValueError, match="no Swin"):
        backbone_from_swin({"norm1.weight": torch.zeros(1)})

"""Every project by its name, there and back, and what no converter accepts."""

import collections
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone import BasicStem, ResNet

from hdetr_d2.checkpoint import SafeCheckpointer, load_checkpoint
from hdetr_d2.checkpoint.convert import BACKBONES, MODELS, OURS, from_ours, read_state, to_ours
from hdetr_d2.modeling import DETR
from tests.modeling.tiny_rtdetr import build as build_rtdetr

from .names.test_deformable_detr import assert_equal, our_state

RESNET18 = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
    out_features=["res3", "res4", "res5"],
)


RTDETR_PROJECTS = ["rtdetr", "transformers", OURS]


HYBRID_ENCODERS = {"rtdetr": "rtdetr", "dfine": "dfine"}
"""The configuration of each project's model, of those that have a hybrid encoder."""


@pytest.mark.parametrize(
    ("name", "project"), [("rtdetr", project) for project in RTDETR_PROJECTS] + [("dfine", "dfine"), ("dfine", OURS)]
)
def test_an_rtdetr_goes_through_a_file_of_every_project_and_back(tmp_path: Path, name: str, project: str) -> None:
    state = {key: value for key, value in build_rtdetr(name).state_dict().items() if not key.startswith("backbone.")}
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(from_ours(project, state), tmp_path / "theirs.pth")
    assert_equal(to_ours(project, *read_state(tmp_path / "theirs.pth")).state, state)
    with pytest.raises(ValueError, match=r"(RT-DETR|D-FINE).*detrex"):
        from_ours("detrex", state)


def test_the_moving_average_of_an_rtdetr_file_is_read_where_there_is_one(tmp_path: Path) -> None:
    average, model = {"weight": torch.ones(1)}, {"weight": torch.zeros(1)}
    torch.save({"model": model, "ema": {"module": average, "updates": 3}}, tmp_path / "both.pth")
    assert read_state(tmp_path / "both.pth")[1]["weight"].item() == 1
    torch.save({"model": model, "ema": None}, tmp_path / "one.pth")
    assert read_state(tmp_path / "one.pth")[1]["weight"].item() == 0


@pytest.mark.parametrize(
    "project", [*(project for project in MODELS if project not in (*HYBRID_ENCODERS, "hdetr_lvis")), OURS]
)
def test_a_model_goes_through_a_file_of_every_project_and_back(
    build_tiny: Callable[..., DETR], tmp_path: Path, project: str
) -> None:
    state = our_state(build_tiny("two_stage"))
    torch.save(from_ours(project, state), tmp_path / "theirs.pth")
    back = to_ours(project, *read_state(tmp_path / "theirs.pth"), num_queries=10)
    assert_equal(back.state, state)


@pytest.mark.parametrize("project", BACKBONES)
def test_a_backbone_goes_through_a_file_of_every_project_and_back(tmp_path: Path, project: str) -> None:
    if project == "swin":
        names = ["body.patch_embed.proj.weight", "body.layers_1.downsample.norm.bias", "norms.res3.weight"]
    else:
        names = ["stem.conv1.weight", "res2.0.conv3.norm.running_var", "res5.0.shortcut.norm.bias"]
    state = {f"backbone.{name}": torch.randn(2, 3, 1, 1) for name in names}
    torch.save(from_ours(project, state), tmp_path / "theirs.pth")
    assert_equal(to_ours(project, *read_state(tmp_path / "theirs.pth")).state, state)


def test_a_pickle_of_arrays_as_detectron2_has_it_is_read(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    content = {"model": {"stem.conv1.weight": weight}, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "r50.pkl").write_bytes(pickle.dumps(content, protocol=2))
    converted = to_ours("detectron2", *read_state(tmp_path / "r50.pkl"))
    assert np.array_equal(converted.state["backbone.stem.conv1.weight"].numpy(), weight)


def test_arrays_of_another_byte_order_are_read_and_arrays_of_objects_refused(tmp_path: Path) -> None:
    numbers = np.arange(3, dtype=">f4")
    (tmp_path / "big.pkl").write_bytes(pickle.dumps({"model": {"weight": numbers}}))
    assert read_state(tmp_path / "big.pkl")[1]["weight"].tolist() == [0.0, 1.0, 2.0]
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps({"model": {"weight": np.array(["a", None])}}))
    with pytest.raises(ValueError, match=r"'weight' is a ndarray"):
        read_state(tmp_path / "odd.pkl")


def test_a_converted_backbone_starts_a_detector_and_the_loader_lists_the_rest_as_new(
    build_tiny: Callable[..., DETR], tmp_path: Path
) -> None:
    net = timm.create_model("resnet18")
    model = build_tiny("hybrid", **{"neck.in_channels": [128, 256, 512]})
    model.backbone = instantiate(RESNET18)
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    converted = to_ours("timm", *read_state(tmp_path / "theirs.pth"))
    torch.save(from_ours(OURS, converted.state), tmp_path / "start.pth")
    checkpointer = SafeCheckpointer(model)
    checkpointer.load(str(tmp_path / "start.pth"))
    report = checkpointer.report
    assert report is not None
    assert not report.mismatched
    assert not report.unused
    assert set(report.kept) == converted.state.keys() == {key for key in model.state_dict() if "backbone." in key}
    assert torch.equal(model.backbone.res5[1].conv2.weight, net.layer4[1].conv2.weight)


def test_what_is_written_holds_no_more_than_its_rows(build_tiny: Callable[..., DETR], tmp_path: Path) -> None:
    state = our_state(build_tiny("two_stage"))
    key = "transformer.level_embed"
    state[key] = torch.zeros(1_000_000, 32)[:4]
    torch.save(from_ours("hdetr", state), tmp_path / "theirs.pth")
    assert (tmp_path / "theirs.pth").stat().st_size < 3_000_000
    assert load_checkpoint(tmp_path / "theirs.pth")["model"][key].shape == (4, 32)


@pytest.mark.parametrize(
    "content",
    [
        {"model": [torch.zeros(1)]},
        {"model": {}},
        {"model": {3: torch.zeros(1)}},
        {"model": {"weight": "text"}},
        {"model": {"weight": {"nested": torch.zeros(1)}}},
        {"model": {"weight": torch.eye(2).to_sparse()}},
        {"model": 7},
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"holds no state dict|a state dict has names and dense tensors"):
        read_state(tmp_path / "odd.pth")


@pytest.mark.parametrize("project", MODELS)
@pytest.mark.parametrize("shape", [(), (0,), (2,)])
def test_tensors_of_forged_shapes_are_refused(
    build_tiny: Callable[..., DETR], tmp_path: Path, project: str, shape: tuple[int, ...]
) -> None:
    if project in HYBRID_ENCODERS:
        built = build_rtdetr(HYBRID_ENCODERS[project]).state_dict()
        state = {key: value for key, value in built.items() if not key.startswith("backbone.")}
    else:
        state = our_state(build_tiny("two_stage"))
    theirs = from_ours(project, state)
    state = theirs.get("model", theirs)
    forged = collections.OrderedDict((key, torch.zeros(shape)) for key in state)
    with pytest.raises(ValueError, match=r"rows|shapes"):
        to_ours(project, forged, forged, classes=[1, 2, 3])


@pytest.mark.parametrize("project", [*MODELS, *BACKBONES, OURS])
def test_a_state_dict_of_nothing_known_is_refused(project: str) -> None:
    state = {"some.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"some\.weight"):
        to_ours(project, state, state)

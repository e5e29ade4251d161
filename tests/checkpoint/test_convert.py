"""Every project by its name, there and back, and what no converter accepts."""

import collections
import pickle

import numpy as np
import pytest
import torch

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.checkpoint.convert import BACKBONES, MODELS, OURS, from_ours, read_state, to_ours

from .test_authors import assert_equal, our_state


@pytest.mark.parametrize("project", [*MODELS, OURS])
def test_a_model_goes_through_a_file_of_every_project_and_back(build_tiny, tmp_path, project: str) -> None:
    state = our_state(build_tiny("two_stage"))
    torch.save(from_ours(project, state), tmp_path / "theirs.pth")
    back = to_ours(project, *read_state(tmp_path / "theirs.pth"), num_queries=10)
    assert_equal(back.state, state)


@pytest.mark.parametrize("project", BACKBONES)
def test_a_backbone_goes_through_a_file_of_every_project_and_back(tmp_path, project: str) -> None:
    if project == "swin":
        names = ["body.patch_embed.proj.weight", "body.layers_1.downsample.norm.bias", "norms.res3.weight"]
    else:
        names = ["stem.conv1.weight", "res2.0.conv3.norm.running_var", "res5.0.shortcut.norm.bias"]
    state = {f"backbone.{name}": torch.randn(2, 3, 1, 1) for name in names}
    torch.save(from_ours(project, state), tmp_path / "theirs.pth")
    assert_equal(to_ours(project, *read_state(tmp_path / "theirs.pth")).state, state)


def test_a_pickle_of_arrays_as_detectron2_has_it_is_read(tmp_path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    content = {"model": {"stem.conv1.weight": weight}, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "r50.pkl").write_bytes(pickle.dumps(content, protocol=2))
    converted = to_ours("detectron2", *read_state(tmp_path / "r50.pkl"))
    assert np.array_equal(converted.state["backbone.stem.conv1.weight"].numpy(), weight)


def test_what_is_written_holds_no_more_than_its_rows(build_tiny, tmp_path) -> None:
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
def test_a_file_without_a_state_dict_is_refused(tmp_path, content) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"holds no state dict|a state dict has names and dense tensors"):
        read_state(tmp_path / "odd.pth")


@pytest.mark.parametrize("project", MODELS)
@pytest.mark.parametrize("shape", [(), (0,), (2,)])
def test_tensors_of_forged_shapes_are_refused(build_tiny, tmp_path, project: str, shape: tuple[int, ...]) -> None:
    theirs = from_ours(project, our_state(build_tiny("two_stage")))
    state = theirs.get("model", theirs)
    forged = collections.OrderedDict((key, torch.zeros(shape)) for key in state)
    with pytest.raises(ValueError, match=r"rows|shapes"):
        to_ours(project, forged, forged, classes=[1, 2, 3])


@pytest.mark.parametrize("project", [*MODELS, *BACKBONES, OURS])
def test_a_state_dict_of_nothing_known_is_refused(project: str) -> None:
    state = {"some.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"some\.weight"):
        to_ours(project, state, state)

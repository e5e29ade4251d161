"""Names of the authors' LVIS models."""

from collections.abc import Callable

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.checkpoint.names.deformable_detr import CODES, AuthorsLayout, to_authors
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR

LVIS = CODES["hdetr_lvis"]
LAYOUT = AuthorsLayout(num_layers=3, two_stage=True, refine=True)
ENCODER_HEAD = "transformer.heads.encoder_class_embed.weight"


@pytest.fixture
def state(build_tiny: Callable[..., DETR]) -> dict[str, Tensor]:
    """Of a hybrid model, with a few tensors of Detectron2's ResNet as backbone."""
    tiny = {key: value for key, value in build_tiny("hybrid").state_dict().items() if not key.startswith("backbone.")}
    return tiny | {
        "backbone.stem.conv1.weight": torch.rand(4, 3, 7, 7),
        "backbone.stem.conv1.norm.running_mean": torch.rand(4),
        "backbone.res2.0.conv1.weight": torch.rand(4, 4, 1, 1),
        "backbone.res5.2.conv3.norm.bias": torch.rand(4),
        "backbone.res3.0.shortcut.weight": torch.rand(4, 4, 1, 1),
    }


def test_a_state_goes_to_their_names_and_back(state: dict[str, Tensor]) -> None:
    theirs = LVIS.to_theirs(state)
    assert theirs["detr.backbone.0.backbone.res3.0.shortcut.weight"] is state["backbone.res3.0.shortcut.weight"]
    assert theirs["detr.query_embed.weight"].shape[0] == 30  # both groups
    assert all(key.startswith("detr.") for key in theirs)
    back = LVIS.to_ours(theirs | {"criterion.fed_loss_weight": torch.rand(5)}, num_queries=10)
    assert back.keys() == state.keys()
    assert [key for key in state if not torch.equal(back[key], state[key]) and "encoder_class" not in key] == []


def test_the_encoder_keeps_its_objectness_alone(state: dict[str, Tensor]) -> None:
    back = LVIS.to_ours(LVIS.to_theirs(state), num_queries=10)
    assert torch.equal(back[ENCODER_HEAD], state[ENCODER_HEAD][:1])
    assert back[ENCODER_HEAD.replace("weight", "bias")].shape == (1,)


def test_other_names_than_the_authors_differ_by_the_prefix_and_the_backbone_only(state: dict[str, Tensor]) -> None:
    without_backbone = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    authors = to_authors(without_backbone, layout=LAYOUT)
    assert LVIS.to_theirs(without_backbone).keys() == {f"detr.{key}" for key in authors}


def test_keys_that_they_do_not_have_are_refused_by_name(state: dict[str, Tensor]) -> None:
    theirs = LVIS.to_theirs(state)
    for key in ("roi_heads.box.weight", "detr.backbone.0.backbone.res9.0.conv1.weight", "detr.surprise"):
        with pytest.raises(ValueError, match=key.removeprefix("detr.").split(".")[0]):
            LVIS.to_ours(theirs | {key: torch.zeros(1)})


def test_the_result_fits_our_lvis_model() -> None:
    config = get_config("common/models/deformable_detr_plus_plus_lvis.py")
    config.dataset = {"num_classes": 7, "image_counts": [1] * 7}
    model = instantiate(config.model)
    ours = model.state_dict()
    wide = ours | {
        name: value.repeat(7, *[1] * (value.dim() - 1)) for name, value in ours.items() if "encoder_class" in name
    }
    theirs = LVIS.to_theirs(wide)
    model.load_state_dict(LVIS.to_ours(theirs))

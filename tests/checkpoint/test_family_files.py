"""Names of the authors and of detrex for the whole family, there and back, and their class rows."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.checkpoint.convert import FAMILY, from_ours, read_state, to_ours
from hdetr_d2.checkpoint.names import detr
from hdetr_d2.checkpoint.renaming import is_derived
from hdetr_d2.model_zoo import get_config
from tests.conftest import NUM_CLASSES, SHARED
from tests.modeling.family import config_of

from .names.test_deformable_detr import assert_equal

FILES = SHARED / "parity" / "family"
MODELS = {name: name for name in FAMILY}
"""The configuration of each project's model."""
PARITY = {
    **MODELS,
    "mr_detr": "mr_detr_deformable",
    "ms_detr": "ms_deformable_detr",
    "relation_detr": "../relatives/relation_detr",
}
DETREX = ["detr", "conditional_detr", "dab_detr", "dn_detr", "dino"]
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
HEAD = "transformer.heads.class_embed.0.bias"
LABELS = "transformer.denoising.label_embed.weight"


RESNET = [f"backbone.{key}" for key in ("stem.conv1.weight", "res2.0.conv3.norm.bias", "res5.0.shortcut.weight")]
"""What of our backbone's names stands for all of them."""


def tiny_state(name: str, *, detrex: bool = False, layers: int = 3) -> dict[str, Tensor]:
    """A model's state without the backbone, each tensor of another value."""
    config = config_of(name)
    config.transformer.decoder.num_layers = layers
    if detrex and name == "dino":
        config.transformer.heads.shared = False
    state = instantiate(config).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    return {key: torch.full_like(value, i) for i, (key, value) in enumerate(state.items())}


def from_file(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The authors' state dict and config of a parity file."""
    with np.load(path) as archive:
        state = {key[3:]: torch.from_numpy(archive[key]) for key in archive.files if key.startswith("sd/")}
        return state, json.loads(archive["config.json"].tobytes())


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_to_its_authors_names_and_back(name: str, layers: int, tmp_path: Path) -> None:
    state = tiny_state(name, layers=layers) | {key: torch.ones(1) for key in RESNET}
    torch.save(from_ours(name, state), tmp_path / "theirs.pth")
    assert_equal(to_ours(name, *read_state(tmp_path / "theirs.pth")).state, state)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", DETREX)
def test_a_model_goes_to_detrex_and_back_and_is_recognised_by_its_names(name: str, layers: int) -> None:
    state = tiny_state(name, detrex=True, layers=layers)
    theirs = from_ours("detrex", state)["model"]
    assert not theirs.keys() & state.keys() - {"transformer.decoder.norm.weight", "transformer.decoder.norm.bias"}
    assert_equal(to_ours("detrex", {}, theirs).state, state)


ONE_LAYER = {
    "hdetr": ["deformable_detr_two_stage", "deformable_detr_plus_plus", "h_deformable_detr", "deformable_detr"],
    "detrex": ["deformable_detr_two_stage", "h_deformable_detr", "deformable_detr"],
    "transformers": ["deformable_detr_two_stage", "deformable_detr", "detr", "conditional_detr", "dab_detr", "rtdetr"],
    "rtdetr": ["rtdetr", "deim_rtdetrv2"],
}


@pytest.mark.parametrize(("project", "name"), [(project, name) for project in ONE_LAYER for name in ONE_LAYER[project]])
def test_a_model_with_one_decoder_layer_goes_to_other_names_and_back(project: str, name: str) -> None:
    state = {key: value for key, value in tiny_state(name, layers=1).items() if not is_derived(key)}
    written = from_ours(project, state)
    back = to_ours(project, {}, written.get("model", written), num_queries=10).state
    assert_equal(back, state)


@pytest.mark.parametrize("project", ["detrex", "mr_detr"])
def test_backbones_of_projects_on_detectron2_keep_its_names(project: str) -> None:
    state = tiny_state("dino" if project == "detrex" else project, detrex=True)
    state |= {key: torch.full((1,), float(i)) for i, key in enumerate(RESNET)}
    theirs = from_ours(project, state)["model"]
    assert all(torch.equal(theirs[key], state[key]) for key in RESNET)
    assert_equal(to_ours(project, {}, theirs).state, state)


@pytest.mark.skipif(not FILES.is_dir(), reason="the authors' state dicts are not beside the repository")
@pytest.mark.parametrize(("name", "file"), [(name, file) for name, file in PARITY.items() if name[:4] != "cond"])
def test_the_authors_own_state_dict_comes_back_with_every_alias(name: str, file: str) -> None:
    theirs, _ = from_file(FILES / f"{file}.npz")
    ours = to_ours(name, {}, theirs).state
    back = from_ours(name, ours)["model"]
    assert back.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(back[key], theirs[key])] == []


@pytest.mark.skipif(not FILES.is_dir(), reason="the authors' state dicts are not beside the repository")
@pytest.mark.parametrize("name", ["detr", "dn_detr", "dino", "mr_detr"])
def test_a_wrong_origin_is_refused_by_the_name_of_a_key(name: str) -> None:
    theirs, _ = from_file(FILES / f"{PARITY[name]}.npz")
    with pytest.raises(ValueError, match="keys are not of MS-DETR, such as"):
        to_ours("ms_detr", {}, theirs)


# Facts from detrex' code, an example of every kind.
EXAMPLES = {
    "detr": {
        "transformer.encoder.layers.0.attentions.0.attn.in_proj_weight": (
            "transformer.encoder.layers.0.self_attn.in_proj_weight"
        ),
        "transformer.decoder.layers.2.attentions.1.attn.out_proj.bias": (
            "transformer.decoder.layers.2.cross_attn.out_proj.bias"
        ),
        "transformer.decoder.layers.1.ffns.0.layers.0.0.weight": "transformer.decoder.layers.1.ffn.linear1.weight",
        "transformer.decoder.layers.1.ffns.0.layers.1.bias": "transformer.decoder.layers.1.ffn.linear2.bias",
        "transformer.decoder.post_norm_layer.weight": "transformer.decoder.norm.weight",
        "class_embed.weight": "transformer.heads.class_embed.0.weight",
        "query_embed.weight": "transformer.query_source.embed.one2one",
    },
    "dn_detr": {
        "anchor_box_embed.weight": "transformer.query_source.anchors.one2one",
        "denoising_generator.label_encoder.weight": LABELS,
        "transformer.encoder.layers.0.ffns.0.layers.0.1.weight": "transformer.encoder.layers.0.ffn.activation.weight",
        "transformer.decoder.layers.0.attentions.1.query_pos_proj.bias": (
            "transformer.decoder.layers.0.cross_attn.query_position.bias"
        ),
        "transformer.decoder.ref_anchor_head.layers.1.bias": ("transformer.decoder.query_position.size.layers.1.bias"),
        "transformer.decoder.bbox_embed.layers.0.bias": "transformer.heads.bbox_embed.0.layers.0.bias",
    },
    "dino": {
        "transformer.tgt_embed.weight": "transformer.query_source.content.one2one",
        "transformer.decoder.layers.1.norms.1.weight": "transformer.decoder.layers.1.cross_attn_norm.weight",
        "neck.extra_convs.0.norm.bias": "neck.levels.3.1.bias",
        "class_embed.3.bias": "transformer.heads.encoder_class_embed.bias",
        "transformer.decoder.class_embed.2.bias": "transformer.heads.class_embed.2.bias",
        "label_enc.weight": LABELS,
    },
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_of_entry_of_detrex_comes_under_the_name_of_what_it_does(name: str) -> None:
    state = tiny_state(name, detrex=True)
    theirs = from_ours("detrex", state)["model"]
    for key, ours in EXAMPLES[name].items():
        assert torch.equal(theirs[key], state[ours]), key


def with_rows(name: str, width: int) -> dict[str, Tensor]:
    """A state in which every row of class heads and label tables is its index."""
    config = config_of(name)
    config.num_classes = width
    state = instantiate(config).state_dict()
    for key, value in state.items():
        if "class_embed" in key or key == LABELS:
            rows = torch.arange(float(len(value)))
            state[key] = rows.view(-1, *([1] * (value.ndim - 1))).expand_as(value)
    return {key: value for key, value in state.items() if not key.startswith("backbone.")}


def first_column(state: Mapping[str, Tensor], key: str) -> list[float]:
    value = state[key]
    return (value if value.ndim == 1 else value[:, 0]).tolist()


@pytest.mark.parametrize("name", [*MODELS, "detrex"])
def test_rows_of_cocos_classes_are_chosen_and_rows_of_no_class_stay_last(name: str) -> None:
    model = "dino" if name == "detrex" else name
    state = with_rows(model, 91)
    if name == "detrex":
        state.update({key.replace(".0.", f".{i}."): v for key, v in state.items() if "heads" in key for i in (1, 2)})
    theirs = from_ours(name, state)["model"]
    converted = to_ours(name, {}, theirs, classes=COCO_IDS).state
    expected = [float(i) for i in COCO_IDS]
    for key in (key for key in converted if ".class_embed." in key):
        assert first_column(converted, key) == ([*expected, 91.0] if model == "detr" else expected), key
    for key in (key for key in converted if "encoder_class_embed" in key or "group_class_embed" in key):
        # Row 0 is an objectness where the encoder does not tell classes apart.
        assert first_column(converted, key) == (
            expected if model in ("dino", "relation_detr") else [0.0, *expected[1:]]
        ), key
    if LABELS in converted:
        tail = list(range(91, len(state[LABELS])))
        assert first_column(converted, LABELS) == expected + tail


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_a_head_does_not_have_are_refused(name: str) -> None:
    theirs = from_ours(name, tiny_state(name))["model"]
    with pytest.raises(ValueError, match=f"the class heads have {NUM_CLASSES} rows"):
        to_ours(name, {}, theirs, classes=COCO_IDS)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_of_nothing_known_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"some\.weight"):
        to_ours(name, {}, {"some.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(), (0,), (2,)])
def test_tensors_of_forged_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    theirs = {key: torch.zeros(shape) for key in from_ours(name, tiny_state(name))["model"]}
    with pytest.raises(ValueError, match=r"rows|shapes"):
        to_ours(name, {}, theirs, classes=[1, 2, 3])


def test_a_project_says_which_models_it_has() -> None:
    with pytest.raises(ValueError, match="keys have no name in DETR"):
        from_ours("detr", tiny_state("dino"))
    with pytest.raises(ValueError, match="transformers has no such model; it has detr, conditional_detr, dab_detr"):
        from_ours("transformers", tiny_state("dino"))


def test_published_models_fit_a_file_with_all_names_of_detr() -> None:
    """As ``detr-r50-e632da11.pth`` has them: 92 rows, of which the last is "no object"."""
    config = get_config("detr_r50_500ep")
    config.dataset.num_classes = 91
    with torch.device("meta"):
        theirs = detr.AUTHORS["detr"].to_theirs(instantiate(config.model).state_dict())
    assert theirs["class_embed.weight"].shape == (92, 256)
    assert theirs["transformer.decoder.layers.5.multihead_attn.in_proj_weight"].shape == (768, 256)
    assert theirs["backbone.0.body.layer4.2.bn3.running_var"].shape == (2048,)
    assert theirs["query_embed.weight"].shape == (100, 256)

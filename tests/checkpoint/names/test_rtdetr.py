"""Names of the authors' RT-DETR, RT-DETRv2 and DEIM code."""

from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from configs.common.models import rtdetr_sizes
from hdetr_d2.checkpoint.convert import to_ours
from hdetr_d2.checkpoint.names.rtdetr import from_rtdetr, is_rtdetr, to_rtdetr
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling.deploy import deploy
from tests.modeling.tiny_rtdetr import build

# One key of each part, as released files have them.
EXPECTED = {
    "r18": [
        "backbone.conv1.conv1_1.conv.weight",
        "backbone.conv1.conv1_3.norm.running_var",
        "backbone.res_layers.0.blocks.0.short.conv.weight",
        "backbone.res_layers.1.blocks.0.short.conv.conv.weight",
        "backbone.res_layers.3.blocks.1.branch2b.norm.bias",
        "encoder.encoder.0.layers.0.self_attn.in_proj_weight",
        "encoder.fpn_blocks.0.conv3.conv.weight",
        "encoder.pan_blocks.1.bottlenecks.2.conv2.norm.running_mean",
        "decoder.input_proj.2.norm.weight",
        "decoder.decoder.layers.2.cross_attn.sampling_offsets.weight",
        "decoder.decoder.layers.0.norm3.weight",
        "decoder.denoising_class_embed.weight",
        "decoder.query_pos_head.layers.1.weight",
        "decoder.dec_bbox_head.2.layers.2.bias",
        "decoder.enc_score_head.weight",
    ],
    "r101": ["backbone.res_layers.2.blocks.22.branch2c.conv.weight", "encoder.lateral_convs.1.norm.weight"],
    "hgnetv2_l": [
        "backbone.stem.stem2a.conv.1.weight",
        "backbone.stages.2.blocks.1.layers.5.conv2.conv.weight",
        "backbone.stages.3.blocks.0.aggregation_squeeze_conv.conv.weight",
    ],
}


def tiny_state(version: int = 2, **changes: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state of a tiny model and the same with the authors' names; its backbone is no ResNet, so without it."""
    state = {key: value for key, value in build(**changes).state_dict().items() if not key.startswith("backbone.")}
    return state, to_rtdetr(state, version=version)


@pytest.mark.parametrize("size", EXPECTED)
def test_names_of_a_whole_model_are_the_authors_and_come_back(size: str) -> None:
    config = get_config("common/models/rtdetr.py").model
    config.num_classes = 80
    getattr(rtdetr_sizes, f"make_{size}")(config)
    with torch.device("meta"):
        state = instantiate(config).state_dict()
    theirs = to_rtdetr(state)
    assert len(theirs) == len(state)
    assert set(EXPECTED[size]) <= theirs.keys()
    back = from_rtdetr(theirs)
    kept = {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in back.items()} == kept


@pytest.mark.parametrize("version", [1, 2])
def test_values_come_back_whatever_the_version(version: int) -> None:
    state, theirs = tiny_state(version)
    assert ("encoder.input_proj.0.0.weight" in theirs) is (version == 1)
    assert ("decoder.enc_output.norm.weight" in theirs) is (version == 2)
    back = from_rtdetr(theirs)
    assert all(torch.equal(back[key], value) for key, value in state.items() if "num_batches" not in key)
    assert is_rtdetr(state)
    assert not is_rtdetr(theirs)


def test_tables_that_follow_from_shapes_are_left_out() -> None:
    _state, theirs = tiny_state()
    tables = ["decoder.anchors", "decoder.valid_mask", "encoder.pos_embed2"]
    tables.append("decoder.decoder.layers.0.cross_attn.num_points_scale")
    assert from_rtdetr(theirs | dict.fromkeys(tables, torch.zeros(1))).keys() == from_rtdetr(theirs).keys()


def test_classes_are_chosen_in_heads_and_label_table() -> None:
    state, theirs = tiny_state()
    chosen = to_ours("rtdetr", {}, theirs, classes=[3, 0]).state
    for head in ("class_embed.1", "encoder_class_embed"):
        for part in ("weight", "bias"):
            key = f"transformer.heads.{head}.{part}"
            assert torch.equal(chosen[key], state[key][[3, 0]])
    table = "transformer.denoising.label_embed.weight"
    assert torch.equal(chosen[table], state[table][[3, 0, 5]])
    with pytest.raises(ValueError, match=r"5 rows.*up to 7"):
        to_ours("rtdetr", {}, theirs, classes=[7])


@pytest.mark.parametrize("keep_branches", [True, False])
def test_a_re_parameterised_file_of_theirs_fits_a_deployed_model(keep_branches: bool) -> None:
    _, theirs = tiny_state()
    model = deploy(build())
    deployed = {key: value for key, value in model.state_dict().items() if not key.startswith("backbone.")}
    blocks = [key.removesuffix("conv1.conv.weight") for key in theirs if "bottlenecks" in key]
    blocks = [key for key in blocks if key.endswith(".")]
    assert len(blocks) == 4
    for block in blocks:
        part, level, _, number = block.removeprefix("encoder.").removesuffix(".").split(".")
        ours = {"fpn_blocks": "top_down", "pan_blocks": "bottom_up"}[part]
        for kind in ("weight", "bias"):
            value = deployed[f"neck.necks.0.{ours}.{level}.blocks.{number}.branches.0.{kind}"]
            theirs[f"{block}conv.{kind}"] = value
    if keep_branches:  # RT-DETR's code keeps what was fused: the file is read as it was trained
        assert from_rtdetr(theirs).keys() == from_rtdetr(tiny_state()[1]).keys()
        return
    fused = {k: v for k, v in theirs.items() if not any(k.startswith((f"{b}conv1.", f"{b}conv2.")) for b in blocks)}
    fused.pop("decoder.denoising_class_embed.weight")
    result = model.load_state_dict(from_rtdetr(fused), strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("backbone.") for key in result.missing_keys)


def test_what_has_no_name_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"1 keys .*RT-DETR.*decoder\.query_embed\.weight"):
        from_rtdetr({"decoder.query_embed.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="re-parameterised"):
        to_rtdetr(deploy(build()).state_dict())
    with pytest.raises(ValueError, match=r"RT-DETR.*backbone\.res3\.weight"):
        to_rtdetr(build().state_dict())


def test_learned_contents_have_the_name_of_the_authors_table() -> None:
    source = "transformer.query_source."
    ours, theirs = tiny_state(**{f"{source}mixed": True, f"{source}token_content": False})
    assert torch.equal(theirs["decoder.tgt_embed.weight"], ours[f"{source}content.one2one"])
    assert torch.equal(from_rtdetr(theirs)[f"{source}content.one2one"], ours[f"{source}content.one2one"])

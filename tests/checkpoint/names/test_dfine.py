"""Names of the authors' D-FINE code, which DEIM's has too."""

import pytest
import torch
from detectron2.config import instantiate

from configs.common.models import dfine_sizes
from hdetr_d2.checkpoint.convert import from_ours, recognised, to_ours
from hdetr_d2.model_zoo import get_config
from tests.modeling.tiny_rtdetr import build

# One key of each part, as released files have them.
EXPECTED = [
    "backbone.stem.stem2a.conv.weight",
    "backbone.stages.2.blocks.1.layers.2.conv2.bn.weight",
    "backbone.stages.3.blocks.0.aggregation.1.conv.weight",
    "encoder.input_proj.1.norm.running_var",
    "encoder.encoder.0.layers.0.self_attn.in_proj_weight",
    "encoder.lateral_convs.0.conv.weight",
    "encoder.downsample_convs.0.0.cv2.conv.weight",
    "encoder.fpn_blocks.0.cv1.norm.bias",
    "encoder.pan_blocks.0.cv3.0.bottlenecks.1.conv2.conv.weight",
    "encoder.pan_blocks.0.cv2.1.conv.weight",
    "encoder.fpn_blocks.0.cv4.conv.weight",
    "decoder.up",
    "decoder.decoder.reg_scale",
    "decoder.decoder.layers.2.gateway.gate.weight",
    "decoder.decoder.layers.0.cross_attn.sampling_offsets.bias",
    "decoder.decoder.lqe_layers.1.reg_conf.layers.1.weight",
    "decoder.pre_bbox_head.layers.2.bias",
    "decoder.dec_bbox_head.2.layers.2.weight",
    "decoder.enc_output.proj.weight",
    "decoder.denoising_class_embed.weight",
]


def test_names_of_a_whole_model_are_the_authors_and_come_back() -> None:
    config = get_config("common/models/dfine.py").model
    config.num_classes = 80
    dfine_sizes.make_n(config)
    with torch.device("meta"):
        state = instantiate(config).state_dict()
    theirs = from_ours("dfine", {key: torch.zeros(value.shape) for key, value in state.items()})["model"]
    assert len(theirs) == len(state) + 2  # two parameters under two names
    assert set(EXPECTED) <= theirs.keys()
    assert recognised(theirs) == "dfine"
    back = to_ours("dfine", {}, theirs).state
    assert back.keys() == {key for key in state if not key.endswith("num_batches_tracked")}


def test_another_model_has_no_names_there() -> None:
    state = build("rtdetr").state_dict()
    with pytest.raises(ValueError, match="is an RT-DETR, for which dfine has no names"):
        from_ours("dfine", state)
    with pytest.raises(ValueError, match="is a D-FINE, for which rtdetr has no names"):
        from_ours("rtdetr", build("dfine").state_dict())

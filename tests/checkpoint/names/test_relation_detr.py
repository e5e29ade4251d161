"""Names of the authors' Relation-DETR code."""

import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2.checkpoint.convert import from_ours, recognised, to_ours
from hdetr_d2.model_zoo import get_config
from tests.modeling.family import build

EXPECTED = [
    "backbone.layer1.0.conv1.weight",
    "neck.convs.3.0.weight",
    "transformer.level_embeds",
    "transformer.encoder.memory_fusion.3.bias",
    "transformer.decoder.layers.5.norm2.weight",
    "transformer.decoder.query_scale.layers.1.weight",
    "transformer.decoder.position_relation_embedding.pos_proj.0.weight",
    "transformer.hybrid_class_head.bias",
    "transformer.hybrid_tgt_embed.weight",
    "denoising_generator.label_encoder.weight",
]


def test_names_of_a_whole_model_are_the_authors_and_come_back() -> None:
    model = get_config("common/models/relation_detr.py").model
    model.num_classes = 91
    with torch.device("meta"):
        state = {key: torch.zeros(value.shape) for key, value in instantiate(model).state_dict().items()}
    theirs = from_ours("relation_detr", state)["model"]
    assert len([key for key in theirs if not key.startswith("backbone.")]) == 330
    assert set(EXPECTED) <= theirs.keys()
    assert recognised(theirs) == "relation_detr"
    assert to_ours("relation_detr", {}, theirs).state.keys() == state.keys()


def test_another_model_has_no_names_there() -> None:
    with pytest.raises(ValueError, match="no Relation-DETR"):
        from_ours("relation_detr", build("dino").state_dict())
    with pytest.raises(ValueError, match="a Relation-DETR, for which dino has no names"):
        from_ours("dino", build("relation_detr").state_dict())

"""detrex's names against the published table, and both ways."""

from collections.abc import Callable

import pytest
import torch

from hdetr_d2.checkpoint.names.deformable_detr import CODES, AuthorsLayout, from_authors
from hdetr_d2.modeling import DETR

from .test_deformable_detr import LAYOUTS, assert_equal, our_state, published_state

DETREX = CODES["detrex"]

# The published correspondence, an example of every row of the table.
EXAMPLES = {
    "transformer.level_embed": "transformer.level_embeds",
    "transformer.encoder.layers.2.self_attn.sampling_offsets.weight": (
        "transformer.encoder.layers.2.attentions.0.sampling_offsets.weight"
    ),
    "transformer.encoder.layers.5.self_attn.output_proj.bias": (
        "transformer.encoder.layers.5.attentions.0.output_proj.bias"
    ),
    "transformer.encoder.layers.0.norm1.weight": "transformer.encoder.layers.0.norms.0.weight",
    "transformer.encoder.layers.0.linear1.weight": "transformer.encoder.layers.0.ffns.0.layers.0.0.weight",
    "transformer.encoder.layers.0.linear2.weight": "transformer.encoder.layers.0.ffns.0.layers.1.weight",
    "transformer.encoder.layers.0.norm2.bias": "transformer.encoder.layers.0.norms.1.bias",
    "transformer.decoder.layers.1.self_attn.in_proj_weight": (
        "transformer.decoder.layers.1.attentions.0.attn.in_proj_weight"
    ),
    "transformer.decoder.layers.1.self_attn.out_proj.bias": (
        "transformer.decoder.layers.1.attentions.0.attn.out_proj.bias"
    ),
    "transformer.decoder.layers.1.cross_attn.value_proj.weight": (
        "transformer.decoder.layers.1.attentions.1.value_proj.weight"
    ),
    "transformer.decoder.layers.1.norm2.weight": "transformer.decoder.layers.1.norms.0.weight",
    "transformer.decoder.layers.1.norm1.weight": "transformer.decoder.layers.1.norms.1.weight",
    "transformer.decoder.layers.1.norm3.weight": "transformer.decoder.layers.1.norms.2.weight",
    "transformer.decoder.layers.1.linear1.bias": "transformer.decoder.layers.1.ffns.0.layers.0.0.bias",
    "transformer.decoder.layers.1.linear2.bias": "transformer.decoder.layers.1.ffns.0.layers.1.bias",
    "transformer.enc_output.weight": "transformer.enc_output.weight",
    "transformer.pos_trans_norm.bias": "transformer.pos_trans_norm.bias",
    "query_embed.weight": "query_embedding.weight",
    "class_embed.6.bias": "class_embed.6.bias",
    "bbox_embed.3.layers.2.weight": "bbox_embed.3.layers.2.weight",
    "transformer.decoder.bbox_embed.3.layers.2.weight": "transformer.decoder.bbox_embed.3.layers.2.weight",
    "input_proj.2.0.weight": "neck.convs.2.conv.weight",
    "input_proj.2.1.bias": "neck.convs.2.norm.bias",
    "input_proj.3.0.weight": "neck.extra_convs.0.conv.weight",
    "input_proj.3.1.bias": "neck.extra_convs.0.norm.bias",
    "backbone.0.body.conv1.weight": "backbone.stem.conv1.weight",
    "backbone.0.body.bn1.running_var": "backbone.stem.conv1.norm.running_var",
    "backbone.0.body.layer3.5.conv2.weight": "backbone.res4.5.conv2.weight",
    "backbone.0.body.layer3.5.bn2.running_mean": "backbone.res4.5.conv2.norm.running_mean",
    "backbone.0.body.layer1.0.downsample.0.weight": "backbone.res2.0.shortcut.weight",
    "backbone.0.body.layer1.0.downsample.1.weight": "backbone.res2.0.shortcut.norm.weight",
}


def published_in_detrex() -> dict[str, torch.Tensor]:
    return DETREX.to_theirs(from_authors(published_state()))


def test_every_row_of_the_published_table_holds() -> None:
    authors, detrex = published_state(), published_in_detrex()
    assert len(detrex) == len(authors) == 631
    assert [key for key, name in EXAMPLES.items() if name not in detrex or not authors[key].equal(detrex[name])] == []


@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_state_goes_to_detrex_names_and_back(build_tiny: Callable[..., DETR], variant: str) -> None:
    state = our_state(build_tiny(variant))
    assert AuthorsLayout.of_ours(state) == LAYOUTS[variant]
    theirs = DETREX.to_theirs(state)
    assert_equal(DETREX.to_ours(theirs, num_queries=10), state)
    assert_equal(DETREX.to_theirs(DETREX.to_ours(theirs, num_queries=10)), theirs)


def test_keys_that_detrex_does_not_have_are_refused_by_name() -> None:
    state = published_in_detrex()
    state["transformer.decoder.layers.0.norm9.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"1 keys .*detrex.*transformer\.decoder\.layers\.0\.norm9\.weight"):
        DETREX.to_ours(state)

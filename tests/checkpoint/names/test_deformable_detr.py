"""Names of the authors' code, both ways, against the published list of entries."""

import re
from collections.abc import Callable

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.checkpoint.convert import to_ours
from hdetr_d2.checkpoint.names.deformable_detr import AuthorsLayout, from_authors, to_authors
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.backbone import TimmBackbone

LAYOUTS = {
    "base": AuthorsLayout(num_layers=3, two_stage=False, refine=False),
    "refine": AuthorsLayout(num_layers=3, two_stage=False, refine=True),
    "two_stage": AuthorsLayout(num_layers=3, two_stage=True, refine=True),
    "plus_plus": AuthorsLayout(num_layers=3, two_stage=True, refine=True),
    "hybrid": AuthorsLayout(num_layers=3, two_stage=True, refine=True),
}


def our_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Without the backbone, which in these models is none that the authors have."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith("backbone.")}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_state_goes_to_the_authors_names_and_back(build_tiny: Callable[..., DETR], variant: str) -> None:
    state = our_state(build_tiny(variant))
    theirs = to_authors(state, layout=LAYOUTS[variant])
    assert AuthorsLayout.of(theirs) == LAYOUTS[variant]
    assert_equal(from_authors(theirs, num_queries=10), state)
    assert_equal(to_authors(from_authors(theirs, num_queries=10), layout=LAYOUTS[variant]), theirs)


@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_file_without_the_aliases_is_read_as_one_with_them(build_tiny: Callable[..., DETR], variant: str) -> None:
    state = our_state(build_tiny(variant))
    theirs = to_authors(state, layout=LAYOUTS[variant])
    stripped = {key: value for key, value in theirs.items() if not re.search(r"decoder\.(class|bbox)_embed", key)}
    assert_equal(from_authors(stripped, num_queries=10), state)


def test_two_stages_without_refinement_share_one_pair_of_heads_with_the_encoder(
    build_tiny: Callable[..., DETR],
) -> None:
    changes = {
        "transformer.decoder.refine": False,
        "transformer.heads.shared": True,
        "transformer.heads.encoder": "shared",
    }
    state = our_state(build_tiny("two_stage", **changes))
    layout = AuthorsLayout(num_layers=3, two_stage=True, refine=False)
    theirs = to_authors(state, layout=layout)
    assert AuthorsLayout.of(theirs) == layout
    assert sorted({key.split(".")[1] for key in theirs if key.startswith("class_embed.")}) == ["0", "1", "2", "3"]
    assert_equal(from_authors(theirs, num_queries=10), state)


def resnet_shapes() -> dict[str, tuple[int, ...]]:
    """Of a ResNet-50 under the names that the published checkpoint has."""
    body = "backbone.0.body"
    shapes: dict[str, tuple[int, ...]] = {}

    def batch_norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})

    shapes[f"{body}.conv1.weight"] = (64, 3, 7, 7)
    batch_norm(f"{body}.bn1", 64)
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        width = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            name = f"{body}.layer{stage}.{block}"
            for conv, shape in enumerate(((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), 1):
                shapes[f"{name}.conv{conv}.weight"] = shape
                batch_norm(f"{name}.bn{conv}", shape[0])
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                batch_norm(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    return shapes


def published_state() -> dict[str, Tensor]:
    """Every entry of the R50 hybrid checkpoint, by the published table of names and shapes; each tensor differs."""
    shapes: dict[str, tuple[int, ...]] = {"transformer.level_embed": (4, 256), "query_embed.weight": (1800, 256)}

    def linear(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def deformable(name: str) -> None:
        linear(f"{name}.sampling_offsets", 256, 256)
        linear(f"{name}.attention_weights", 128, 256)
        linear(f"{name}.value_proj", 256, 256)
        linear(f"{name}.output_proj", 256, 256)

    for layer in range(6):
        encoder, decoder = (f"transformer.{part}.layers.{layer}" for part in ("encoder", "decoder"))
        deformable(f"{encoder}.self_attn")
        deformable(f"{decoder}.cross_attn")
        shapes[f"{decoder}.self_attn.in_proj_weight"] = (768, 256)
        shapes[f"{decoder}.self_attn.in_proj_bias"] = (768,)
        linear(f"{decoder}.self_attn.out_proj", 256, 256)
        for name, norms in ((encoder, 2), (decoder, 3)):
            linear(f"{name}.linear1", 2048, 256)
            linear(f"{name}.linear2", 256, 2048)
            for norm in range(1, norms + 1):
                linear(f"{name}.norm{norm}", 256)
    linear("transformer.enc_output", 256, 256)
    linear("transformer.enc_output_norm", 256)
    linear("transformer.pos_trans", 512, 512)
    linear("transformer.pos_trans_norm", 512)
    for prefix in ("", "transformer.decoder."):
        for head in range(7):
            linear(f"{prefix}class_embed.{head}", 91, 256)
            for layer, width in enumerate((256, 256, 4)):
                linear(f"{prefix}bbox_embed.{head}.layers.{layer}", width, 256)
    for level, (width, kernel) in enumerate(((512, 1), (1024, 1), (2048, 1), (2048, 3))):
        linear(f"input_proj.{level}.0", 256, width, kernel, kernel)
        linear(f"input_proj.{level}.1", 256)
    shapes.update(resnet_shapes())
    # One number a tensor, expanded: no memory, and a swapped pair is noticed.
    state = {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(shapes.items())}
    for key in state:
        if key.startswith("transformer.decoder.") and "_embed." in key:
            state[key] = state[key.removeprefix("transformer.decoder.")]
    return state


def kind(key: str) -> str:
    parts = key.split(".")
    if parts[0] == "transformer":
        return parts[1] if parts[1] in ("encoder", "decoder") else parts[1].removesuffix("_norm")
    return parts[0]


def test_the_published_checkpoint_has_the_published_entries() -> None:
    counts: dict[str, int] = {}
    for key in published_state():
        counts[kind(key)] = counts.get(kind(key), 0) + 1
    assert counts == {
        "backbone": 265,
        "encoder": 96,
        "decoder": 188,
        "class_embed": 14,
        "bbox_embed": 42,
        "input_proj": 16,
        "enc_output": 4,
        "pos_trans": 4,
        "level_embed": 1,
        "query_embed": 1,
    }
    assert sum(counts.values()) == 631


def test_every_entry_of_the_published_checkpoint_finds_its_place_in_the_configured_model() -> None:
    config = get_config("h_deformable_detr/h_deformable_detr_r50_12ep.py")
    config.dataset.num_classes = 91
    with torch.device("meta"):
        model = instantiate(config.model)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = published_state()
    converted = from_authors(theirs, num_queries=300)
    assert {key: tuple(value.shape) for key, value in converted.items()} == wanted
    back = to_authors(converted, layout=AuthorsLayout(num_layers=6, two_stage=True, refine=True))
    assert_equal(back, theirs)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.0.body.bn1.running_var", "backbone.stem.conv1.norm.running_var"),
        ("backbone.0.body.layer3.5.bn2.weight", "backbone.res4.5.conv2.norm.weight"),
        ("backbone.0.body.layer1.0.downsample.1.bias", "backbone.res2.0.shortcut.norm.bias"),
        ("transformer.decoder.layers.4.norm2.weight", "transformer.decoder.layers.4.self_attn_norm.weight"),
        ("transformer.decoder.layers.4.norm1.weight", "transformer.decoder.layers.4.cross_attn_norm.weight"),
        ("transformer.decoder.layers.4.norm3.weight", "transformer.decoder.layers.4.ffn_norm.weight"),
        ("class_embed.6.bias", "transformer.heads.encoder_class_embed.bias"),
        ("bbox_embed.5.layers.2.weight", "transformer.heads.bbox_embed.5.layers.2.weight"),
    ],
)
def test_an_entry_comes_under_the_name_of_what_it_does(theirs: str, ours: str) -> None:
    state = published_state()
    assert torch.equal(from_authors(state)[ours], state[theirs])


def test_the_first_rows_of_the_query_table_are_the_one_to_one_groups() -> None:
    state = published_state()
    state["query_embed.weight"] = torch.arange(1800.0)[:, None].expand(1800, 256)
    converted = from_authors(state, num_queries=300)
    assert converted["transformer.query_source.content.one2one"][:, 0].tolist() == list(range(300))
    assert converted["transformer.query_source.content.one2many"][:, 0].tolist() == list(range(300, 1800))


COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def test_class_rows_are_chosen_and_the_encoders_objectness_row_stays_first() -> None:
    state = published_state()
    for head in range(7):
        rows = 1000.0 * head + torch.arange(91.0)
        state[f"class_embed.{head}.weight"] = rows[:, None].expand(91, 256)
        state[f"class_embed.{head}.bias"] = rows
    converted = to_ours("hdetr", {}, state, classes=COCO_IDS).state
    assert len(COCO_IDS) == 80
    for head in range(6):
        prefix = f"transformer.heads.class_embed.{head}"
        expected = [1000.0 * head + i for i in COCO_IDS]
        assert converted[f"{prefix}.bias"].tolist() == expected
        assert converted[f"{prefix}.weight"][:, 7].tolist() == expected
    for part in ("weight", "bias"):
        encoder = converted[f"transformer.heads.encoder_class_embed.{part}"]
        assert len(encoder) == 80
        assert encoder[0].flatten()[0].item() == 6000.0
    others = from_authors(state)
    assert [key for key in converted if "class_embed" not in key and not torch.equal(converted[key], others[key])] == []


def test_choosing_classes_leaves_the_given_list_alone() -> None:
    rows = torch.tensor([3, 1, 2])
    to_ours("hdetr", {}, published_state(), classes=rows)
    assert rows.tolist() == [3, 1, 2]


def test_keys_that_the_authors_do_not_have_are_refused_by_name() -> None:
    state = published_state()
    state["transformer.decoder.layers.0.extra.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"1 keys .*transformer\.decoder\.layers\.0\.extra\.weight"):
        from_authors(state)


def test_a_state_of_another_project_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have the names of the authors"):
        from_authors({"model.encoder.weight": torch.zeros(1)})


def test_our_keys_that_the_authors_have_no_name_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no name in the authors. code.*transformer\.new\.weight"):
        to_authors({"transformer.new.weight": torch.zeros(1)}, layout=LAYOUTS["hybrid"])


def swin_state() -> dict[str, Tensor]:
    """Our hybrid model's names with a small Swin that has the norms of detectors on its outputs."""
    swin = TimmBackbone(name="swin_tiny_patch4_window7_224", output_norm=True, model_args={"embed_dim": 24})
    return {f"backbone.{key}": value for key, value in swin.state_dict().items()}


def test_a_swin_model_goes_to_the_authors_names_and_back(build_tiny: Callable[..., DETR]) -> None:
    state = {**our_state(build_tiny("hybrid")), **swin_state()}
    theirs = to_authors(state, layout=LAYOUTS["hybrid"])
    body = "backbone.0.body"
    for name in (
        "patch_embed.norm.bias",
        "layers.0.blocks.1.attn.relative_position_bias_table",
        "layers.2.blocks.5.mlp.fc2.weight",
        "layers.0.downsample.reduction.weight",
        "norm1.weight",
        "norm3.weight",
    ):
        assert f"{body}.{name}" in theirs
    assert theirs[f"{body}.norm1.weight"] is state["backbone.norms.res3.weight"]
    assert theirs[f"{body}.layers.2.downsample.norm.weight"] is state["backbone.body.layers_3.downsample.norm.weight"]
    # Their files also hold a buffer that follows from the window.
    theirs[f"{body}.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    assert_equal(from_authors(theirs, num_queries=10), state)

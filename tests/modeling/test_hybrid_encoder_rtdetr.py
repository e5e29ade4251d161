"""RT-DETR, RT-DETRv2 and DEIM as whole models: published sizes, training, deployment, images with padding."""

from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from configs.common.models import rtdetr_sizes
from hdetr_d2.layers import MultiScaleDeformableAttention
from hdetr_d2.model_zoo import get_config
from hdetr_d2.modeling import DETR
from hdetr_d2.modeling.deploy import deploy
from hdetr_d2.supervision import PRIMARY
from tests.modeling.family import config_of
from tests.modeling.tiny_rtdetr import build

SIZES = {  # parameters as built and as deployed, counted in the authors' code
    "r18": (20_184_464, 19_962_512),
    "r34": (31_441_668, 31_219_716),
    "r50_m": (36_593_772, 36_371_820),
    "r50": (42_891_372, 42_074_988),
    "r101": (76_556_268, 74_752_236),
}
MILLIONS = {"hgnetv2_l": 32, "hgnetv2_x": 67}  # RT-DETR's repository
DEIM_MILLIONS = {"r18": 20, "r34": 31, "r50_m": 33, "r50": 42, "r101": 76}  # DEIM's repository
MODELS = ["rtdetr", "rtdetrv2_discrete", "deim_rtdetrv2"]
LEARNED_CONTENT = {  # learn_query_content in the authors' configuration
    "transformer.query_source.mixed": True,
    "transformer.query_source.token_content": False,
    "transformer.query_source.content_init": "xavier",
}


def build_size(size: str, name: str = "rtdetr", **changes: Any) -> DETR:
    """A model of full size on the meta device."""
    model = get_config(f"common/models/{name}.py").model
    model.num_classes = 80
    if size != "r50":
        getattr(rtdetr_sizes, f"make_{size}")(model)
    for key, value in changes.items():
        model.transformer.decoder[key] = value
    with torch.device("meta"):
        return instantiate(model)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_the_published_number_of_parameters_built_and_deployed(size: str) -> None:
    model = build_size(size)
    built = count(model)
    assert (built, count(deploy(model))) == SIZES[size]


@pytest.mark.parametrize("size", MILLIONS)
def test_models_on_hgnetv2_have_the_published_number_of_parameters(size: str) -> None:
    assert count(build_size(size)) // 1_000_000 == MILLIONS[size]


@pytest.mark.parametrize("size", DEIM_MILLIONS)
def test_deims_models_have_the_published_number_of_parameters(size: str) -> None:
    changes = {"num_layers": 3, "num_eval_layers": None} if size == "r50_m" else {}
    deployed = count(deploy(build_size(size, "deim_rtdetrv2", **changes)))
    assert abs(deployed / 1e6 - DEIM_MILLIONS[size]) < 1.2, deployed


@pytest.mark.parametrize(
    ("size", "frozen"), [("r18", set()), ("r34", set()), ("r50_m", {"conv1"}), ("r50", {"conv1"}), ("r101", {"conv1"})]
)
def test_what_the_authors_freeze_is_frozen(size: str, frozen: set[str]) -> None:
    model = build_size(size)
    names = {name.split(".")[2] for name, p in model.named_parameters() if not p.requires_grad}
    assert names == frozen
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.backbone.modules()) is (not frozen)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.neck.modules())


@pytest.mark.parametrize("name", MODELS)
def test_all_that_is_trained_gets_a_gradient_with_and_without_targets(name: str, draw_batch: Any) -> None:
    model = build(name).train()
    keys = set()
    for counts in ((3, 1), (0, 0)):
        model.zero_grad()
        losses = model(draw_batch(*((64, 96, n) for n in counts)))
        assert all(loss.isfinite() for loss in losses.values())
        keys.add(frozenset(losses))
        sum(losses.values()).backward()
        without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []
    assert len(keys) == 1


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_deployed_model_detects_the_same(name: str, draw_batch: Any) -> None:
    model = build(name).eval()
    batch = draw_batch((64, 96, 1), (64, 96, 2))
    expected = model(batch)
    found = deploy(model, conv_norms=True)(batch)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours["instances"].scores, theirs["instances"].scores, atol=1e-4, rtol=1e-3)
        boxes = [x["instances"].pred_boxes.tensor for x in (ours, theirs)]
        torch.testing.assert_close(*boxes, atol=1e-2, rtol=1e-3)
    state = model.state_dict()
    again = deploy(build(name, seed=1), conv_norms=True)
    again.load_state_dict(state)
    for ours, theirs in zip(again(batch), found, strict=True):
        assert torch.equal(ours["instances"].pred_boxes.tensor, theirs["instances"].pred_boxes.tensor)


@torch.no_grad()
def test_layers_for_training_alone_do_not_run_in_inference(draw_batch: Any) -> None:
    model = build(**{"transformer.decoder.num_eval_layers": 2}).eval()
    ran = []
    for index, layer in enumerate(model.transformer.decoder.layers):
        layer.register_forward_hook(lambda module, args, output, index=index: ran.append(index))
    model(draw_batch((64, 64, 1)))
    assert ran == [0, 1]
    ran.clear()
    model.train()(draw_batch((64, 64, 1)))
    assert ran == [0, 1, 2]


@torch.no_grad()
def test_the_decoder_knows_padding_where_there_is_any(draw_batch: Any) -> None:
    model = build().eval()
    seen = []
    model.transformer.decoder.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[3].padding))
    model(draw_batch((64, 64, 1), (96, 160, 1)))
    model(draw_batch((96, 160, 1), (96, 160, 1)))
    padding, none = seen
    # 12 x 20, 6 x 10 and 3 x 5 cells, of which the first image has 8 x 8, 4 x 4 and 2 x 2.
    assert (~padding).sum(1).tolist() == [64 + 16 + 4, 240 + 60 + 15]
    assert none is None


def test_points_of_levels_reach_every_layer() -> None:
    model = build(**{"transformer.decoder.layer.num_points": [4, 3, 2]})
    attentions = [m for m in model.modules() if isinstance(m, MultiScaleDeformableAttention)]
    assert len(attentions) == 3
    assert all(m.points == [4, 3, 2] for m in attentions)


def test_the_encoder_may_be_wider_than_the_decoder(draw_batch: Any) -> None:
    model = build().train()
    assert model.transformer.decoder.layers[0].self_attn.out_proj.weight.shape == (32, 32)
    sum(model(draw_batch((64, 64, 2))).values()).backward()
    assert model.neck.necks[0].encoder.layers[0].self_attn.out_proj.weight.grad.shape == (48, 48)


def test_a_graph_captured_in_one_piece_computes_the_same(draw_batch: Any) -> None:
    model = build(**{"transformer.decoder.num_layers": 2}).eval()
    features = model.backbone(torch.randn(2, 3, 64, 96))

    def detect(features: Any) -> Any:
        predictions, _ = model.predict(features, (64, 96), [(64, 96)] * 2)
        return predictions[PRIMARY].logits, predictions[PRIMARY].boxes

    with torch.no_grad():
        captured = torch.compile(detect, backend="eager", fullgraph=True)(features)
        for ours, eager in zip(captured, detect(features)):
            torch.testing.assert_close(ours, eager, atol=1e-5, rtol=1e-5)


def test_learned_contents_take_the_place_of_the_chosen_tokens_in_every_image(draw_batch: Any) -> None:
    model = build(**LEARNED_CONTENT).train()
    seen: list[torch.Tensor] = []
    model.transformer.decoder.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    sum(model(draw_batch((64, 96, 2), (64, 96, 1))).values()).backward()
    learned = model.transformer.query_source.content[PRIMARY]
    assert learned.shape == (10, 32)
    assert learned.grad.abs().sum(1).gt(0).all()
    for of_image in seen[0]:  # denoising queries come after those of the primary group
        assert torch.equal(of_image[:10], learned)


def test_contents_are_drawn_as_the_authors_draw_them() -> None:
    bound = (6 / (10 + 32)) ** 0.5
    for drawn, uniform in (("xavier", True), ("normal", False)):
        config = config_of("rtdetr")
        config.transformer.query_source.update(mixed=True, token_content=False, content_init=drawn)
        content = instantiate(config).transformer.query_source.content[PRIMARY]
        assert bool(content.abs().max() <= bound) is uniform
        assert content.std() > 0.1
    with pytest.raises(ValueError, match='content_init is "normal" or "xavier", got \'zeros\''):
        build(**LEARNED_CONTENT | {"transformer.query_source.content_init": "zeros"})

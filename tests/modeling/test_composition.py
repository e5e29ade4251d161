"""Parts that do not go together are refused when a model is built, with the reason."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf

from hdetr_d2.losses import SigmoidFocalLoss, SoftmaxCrossEntropy
from hdetr_d2.matching import TopKMatcher
from hdetr_d2.modeling import (
    AnchorQueries,
    ConditionalDecoderLayer,
    DecoderRoute,
    LearnedQueries,
    PointQueryPosition,
    SineQueryPosition,
    composition,
)
from hdetr_d2.supervision import AuxiliaryOneToMany, HybridBranch
from tests.modeling.family import config_of


def divide_by_nothing(model: Any) -> None:
    model.pixel_std = [58.4, 0.0, 57.4]


def subtract_nothing_known(model: Any) -> None:
    model.pixel_mean = [float("nan"), 0.0, 0.0]


def drop_references(model: Any) -> None:
    model.transformer.query_source.references = False


def refine_without_references(model: Any) -> None:
    model.transformer.decoder.refine = True


def embed_points_as_boxes(model: Any) -> None:
    model.transformer.decoder.query_position = L(SineQueryPosition)(embed_dim=32)


def drop_points(model: Any) -> None:
    model.transformer.query_source.references = False


def drop_query_position(model: Any) -> None:
    model.transformer.query_source = L(AnchorQueries)(num_queries=10, embed_dim=32)
    model.transformer.decoder.query_position = None


def replace_conditional_position(model: Any) -> None:
    model.transformer.decoder.query_position = L(SineQueryPosition)(embed_dim=32)


def drop_positions(model: Any) -> None:
    model.transformer.position_embedding = None


def rank_without_proposals(model: Any) -> None:
    model.supervision = L(AuxiliaryOneToMany)(matcher=L(TopKMatcher)(), routes={"instructed": "own"}, num_queries=10)


def supervise_the_selected(model: Any) -> None:
    model.transformer.query_source.supervise = "selected"


def focal_over_softmax(model: Any) -> None:
    model.criterion.classification = L(SigmoidFocalLoss)()


def softmax_over_sigmoid(model: Any) -> None:
    model.criterion.classification = L(SoftmaxCrossEntropy)()


def softmax_of_proposals(model: Any) -> None:
    model.criterion.encoder_classification = L(SoftmaxCrossEntropy)()


def focal_of_proposals(model: Any) -> None:
    model.criterion.encoder_classification = L(SigmoidFocalLoss)()


def weigh_proposals(model: Any) -> None:
    model.criterion.encoder_class_weight = 7.0


def focal_costs_for_softmax(model: Any) -> None:
    model.supervision = L(HybridBranch)(num_queries=20, k=3)


def points_for_refined_boxes(model: Any) -> None:
    model.transformer.query_source = L(LearnedQueries)(num_queries=10, embed_dim=32)


def more_heads_than_layers(model: Any) -> None:
    model.transformer.heads.num_layers = 7


def fewer_heads_than_layers(model: Any) -> None:
    model.transformer.heads.num_layers = 1


def scales_of_other_layers(model: Any) -> None:
    model.transformer.decoder.query_position.update(scale="layer", num_layers=9)


def another_width_of_the_encoder(model: Any) -> None:
    model.transformer.encoder.embed_dim = 1


def another_width_of_the_decoder(model: Any) -> None:
    model.transformer.decoder.embed_dim = 64


CASES = [
    ("detr", divide_by_nothing, "pixel_std must be positive"),
    ("detr", subtract_nothing_known, "pixel_mean must be finite"),
    ("deformable_detr_two_stage", more_heads_than_layers, r"heads has num_layers=7 and transformer\.decoder has num_"),
    ("deformable_detr_two_stage", fewer_heads_than_layers, r"heads has num_layers=1 and transformer\.decoder has num_"),
    ("dab_detr", scales_of_other_layers, r"decoder\.query_position has num_layers=9 and transformer\.decoder has"),
    ("deformable_detr", another_width_of_the_encoder, "queries, tokens and layers of a transformer have one width"),
    ("deformable_detr", another_width_of_the_decoder, "queries, tokens and layers of a transformer have one width"),
    ("deformable_detr", drop_references, "cannot be refined, nor sample around a place"),
    ("detr", refine_without_references, "cannot be refined"),
    ("deformable_detr", embed_points_as_boxes, "embeds boxes, but the references of LearnedQueries are points"),
    ("conditional_detr", drop_points, "PointQueryPosition embeds points, but the references .* are none"),
    ("dino", points_for_refined_boxes, "embeds boxes, but the references of LearnedQueries are points"),
    ("deformable_detr", drop_query_position, "nor the decoder makes positional queries"),
    ("dab_detr", replace_conditional_position, "belong together"),
    ("detr", drop_positions, "need a position_embedding"),
    ("deformable_detr", drop_positions, "need a position_embedding"),
    ("deformable_detr", rank_without_proposals, "has no proposals"),
    ("mr_detr", supervise_the_selected, "matched by their anchors"),
    ("detr", focal_over_softmax, "do not mix"),
    ("dino", softmax_over_sigmoid, "do not mix"),
    ("dino", softmax_of_proposals, "do not mix"),
    ("deformable_detr", focal_of_proposals, "class loss or weight for proposals, but LearnedQueries has no proposals"),
    ("dab_detr", weigh_proposals, "class loss or weight for proposals, but AnchorQueries has no proposals"),
    ("detr", focal_costs_for_softmax, "do not mix"),
]


@pytest.mark.parametrize(("name", "change", "message"), CASES, ids=[case[1].__name__ + "-" + case[0] for case in CASES])
def test_parts_that_cannot_work_together_are_refused(name: str, change: Any, message: str) -> None:
    model = config_of(name)
    change(model)
    with pytest.raises(ValueError, match=message):
        instantiate(model)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of a user's own, importable and outside the package."""
    shutil.copy(Path(__file__).with_name("outside_parts.py"), tmp_path / "my_parts.py")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_parts"
    sys.modules.pop("my_parts", None)


def use(config: Any, module: str, key: str, name: str, **arguments: Any) -> None:
    """Put a part of a module into a config, by its import path as a saved config has it."""
    OmegaConf.update(config, key, {"_target_": f"{module}.{name}", **arguments}, merge=False, force_add=True)


def use_points(config: Any, module: str, **arguments: Any) -> None:
    use(config, module, "transformer.query_source", "GridQueries", num_queries=10, embed_dim=32, **arguments)


def use_layer(config: Any, module: str, name: str) -> None:
    use(config, module, "transformer.decoder.layer", name, embed_dim=32)


def use_matchers(config: Any, module: str, *names: str, **arguments: Any) -> None:
    matchers = {key: {"_target_": f"{module}.{name}"} for key, name in zip(("first", "second"), names)}
    use(config, module, "supervision", "Alternating", **matchers, **arguments)


def points_for_sampling(config: Any, module: str) -> None:
    use_points(config, module)


def points_to_embed(config: Any, module: str) -> None:
    config.transformer.decoder.query_position = L(PointQueryPosition)(embed_dim=32)
    config.transformer.decoder.layer = L(ConditionalDecoderLayer)(embed_dim=32, num_heads=4, hidden_dim=48)
    use_points(config, module)


def no_points_for_own_layer(config: Any, module: str) -> None:
    use_points(config, module, points=False)
    use_layer(config, module, "PositionedLayer")


def own_layer_without_token_positions(config: Any, module: str) -> None:
    config.transformer.decoder.checkpoint_activations = False
    config.transformer.update(position_embedding=None, encoder=None)
    use_points(config, module)
    use_layer(config, module, "MeanLayer")


def own_layer_that_samples(config: Any, module: str) -> None:
    use_layer(config, module, "SamplingLayer")


def own_layer_with_places(config: Any, module: str) -> None:
    config.transformer.decoder.query_position = L(PointQueryPosition)(embed_dim=32)
    use_layer(config, module, "PlacedLayer")


def own_matchers(config: Any, module: str) -> None:
    use_matchers(config, module, "InOrder", "InOrder")


def own_groups(config: Any, module: str) -> None:
    config.transformer.decoder.layer.routes = [L(DecoderRoute)(name="more", embed_dim=32)]
    use_matchers(config, module, "InOrder", queries="next")


RIGHT = [
    points_for_sampling,
    points_to_embed,
    no_points_for_own_layer,
    own_layer_without_token_positions,
    own_layer_that_samples,
    own_layer_with_places,
    own_matchers,
    own_groups,
]


@pytest.mark.parametrize("change", RIGHT, ids=lambda change: change.__name__)
def test_parts_of_a_users_own_that_fit_train_and_detect(change: Any, outside: str, draw_batch: Any) -> None:
    config = config_of("deformable_detr")
    change(config, outside)
    model, batch = instantiate(config), draw_batch((64, 96, 3), (64, 64, 1))
    for progress in (0.0, 0.9):
        model.progress = progress
        losses = model.train()(batch)
        assert losses
        assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        assert [len(x["instances"]) for x in model.eval()(batch)] == [10, 10]


def embed_own_points_as_boxes(config: Any, module: str) -> None:
    config.transformer.decoder.query_position = L(SineQueryPosition)(embed_dim=32)
    use_points(config, module)


def sample_without_points(config: Any, module: str) -> None:
    use_points(config, module, points=False)


def sample_in_own_layer_without_points(config: Any, module: str) -> None:
    use_points(config, module, points=False)
    use_layer(config, module, "SamplingLayer")


def refine_without_points(config: Any, module: str) -> None:
    config.transformer.decoder.refine = True
    use_points(config, module, points=False)
    use_layer(config, module, "MeanLayer")


def own_layer_without_places(config: Any, module: str) -> None:
    use_layer(config, module, "PlacedLayer")


def places_without_need(config: Any, module: str) -> None:
    config.transformer.decoder.query_position = L(PointQueryPosition)(embed_dim=32)
    use_layer(config, module, "MeanLayer")


def own_layer_of_positions(config: Any, module: str) -> None:
    config.transformer.decoder.checkpoint_activations = False
    config.transformer.update(position_embedding=None, encoder=None)
    use_layer(config, module, "PositionedLayer")


def own_matcher_of_probabilities(config: Any, module: str) -> None:
    use_matchers(config, module, "ByProbability")


def own_matcher_of_probabilities_later(config: Any, module: str) -> None:
    use_matchers(config, module, "InOrder", "ByProbability")


def rank_own_groups_without_proposals(config: Any, module: str) -> None:
    use_matchers(config, module, "InOrder", queries="own")


def layer_without_declarations(config: Any, module: str) -> None:
    use_layer(config, module, "Undeclared")


WRONG = [
    (embed_own_points_as_boxes, "SineQueryPosition embeds boxes, but the references of GridQueries are points"),
    (sample_without_points, "as GridQueries makes them here, cannot be refined, nor sample"),
    (sample_in_own_layer_without_points, "cannot be refined, nor sample"),
    (refine_without_points, "cannot be refined"),
    (own_layer_without_places, "belong together; got PlacedLayer and NoneType"),
    (places_without_need, "belong together; got MeanLayer and PointQueryPosition"),
    (own_layer_of_positions, "need a position_embedding"),
    (own_matcher_of_probabilities, "do not mix: .*ByProbability of one2one is of softmax"),
    (own_matcher_of_probabilities_later, "do not mix: .*ByProbability of one2one is of softmax"),
    (rank_own_groups_without_proposals, "group 'more' ranks proposals by heads of its own, but LearnedQueries has no"),
    (
        layer_without_declarations,
        "Undeclared does not say what it needs: it has no samples.*modeling.DecoderLayer",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[case[0].__name__ for case in WRONG])
def test_parts_of_a_users_own_that_do_not_fit_are_refused(change: Any, message: str, outside: str) -> None:
    config = config_of("deformable_detr")
    change(config, outside)
    with pytest.raises(ValueError, match=message):
        instantiate(config)


def test_what_is_compared_knows_no_part_by_its_class() -> None:
    text = Path(composition.__file__).read_text()
    assert "isinstance" not in text
    assert "TYPE_CHECKING" not in text

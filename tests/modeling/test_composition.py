"""Parts that do not go together are refused when a model is built, with the reason."""

from typing import Any

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from hdetr_d2.losses import SigmoidFocalLoss, SoftmaxCrossEntropy
from hdetr_d2.matching import TopKMatcher
from hdetr_d2.modeling import AnchorQueries, LearnedQueries, SineQueryPosition
from hdetr_d2.supervision import AuxiliaryOneToMany, HybridBranch
from tests.modeling.family import config_of


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


CASES = [
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

"""Distinct queries and one-to-many proposals on every two-stage model."""

import logging
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy
from hdetr_d2.modeling import DETR
from hdetr_d2.ops import nms_mask
from hdetr_d2.structures import QueryGroup
from hdetr_d2.supervision import PRIMARY, HybridProposals
from tests.modeling.family import OF_PROPOSALS, ONE_TO_MANY, ONE_TO_ONE, build, config_of

TWO_STAGE = [
    name
    for name in ONE_TO_ONE + ONE_TO_MANY
    if getattr(config_of(name).transformer.query_source._target_, "makes_proposals", False)
]
LEARNS_ONE_TO_ONE = [name for name in TWO_STAGE if name in ONE_TO_ONE]
DISTINCT = {"distinct": 0.3}


def groups_of(model: DETR, batch: list[dict[str, Any]], *, training: bool) -> dict[str, QueryGroup]:
    """What the query source makes of a batch."""
    images = model.preprocess(batch)
    maps = model.neck(model.backbone(images.tensor), tuple(images.tensor.shape[-2:]), images.image_sizes)
    transformer = model.transformer
    memory = transformer.flatten(maps, tuple(images.tensor.shape[-2:]), images.image_sizes)
    groups, _ = transformer.query_source(memory, transformer.heads, training=training)
    return {group.name: group for group in groups}


def count_distinct(boxes: Tensor | None) -> list[int]:
    """How many boxes (B, n, 4) cxcywh of each image do not overlap a better one; rounding decides nothing."""
    assert boxes is not None
    return nms_mask(cxcywh_to_xyxy(boxes), DISTINCT["distinct"] + 1e-4).sum(1).tolist()


def test_the_two_stage_models_are_known() -> None:
    assert {"deformable_detr_two_stage", "deformable_detr_plus_plus", "dino", "rtdetr", "deim_rtdetrv2"} <= set(
        TWO_STAGE
    )
    assert {"h_deformable_detr", "mr_detr", "mr_detr_dino"} <= set(TWO_STAGE)


@pytest.mark.parametrize("name", TWO_STAGE)
def test_every_two_stage_model_trains_with_distinct_queries(name: str, draw_batch: Any) -> None:
    schemes = [None, *OF_PROPOSALS] if name in LEARNS_ONE_TO_ONE else [None]
    for scheme in schemes:
        model = build(name, scheme, query_source=DISTINCT).train()
        images: list[tuple[int, int, int]]
        for images in ([(128, 160, 3), (96, 128, 1)], [(64, 64, 0), (64, 64, 0)]):
            losses = model(draw_batch(*images))
            sum(losses.values()).backward()
            assert all(value.isfinite() for value in losses.values()), (scheme, losses)
            missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert not missing, (scheme, images, missing)


@pytest.mark.parametrize("name", TWO_STAGE)
def test_distinct_queries_have_the_same_parameters_and_load_older_checkpoints(name: str) -> None:
    older, newer = build(name, seed=1), build(name, seed=2, query_source=DISTINCT)
    newer.load_state_dict(older.state_dict())


@pytest.mark.parametrize("name", LEARNS_ONE_TO_ONE)
@torch.no_grad()
def test_the_first_queries_do_not_overlap_and_training_takes_the_same(name: str, draw_batch: Any) -> None:
    batch = draw_batch((128, 160, 2), (128, 160, 1))
    model = build(name, "branch", perturb=0.3, query_source=DISTINCT).eval()
    groups = groups_of(model, batch, training=True)
    alone = groups_of(model, batch, training=False)
    assert list(alone) == [PRIMARY]
    torch.testing.assert_close(alone[PRIMARY].reference, groups[PRIMARY].reference)
    assert count_distinct(alone[PRIMARY].reference) == [10, 10]
    # The branch takes the ranks that are left: its queries are others.
    both = torch.cat([groups[PRIMARY].reference, groups["one2many"].reference], dim=1)
    for image in both:
        assert len(image.unique(dim=0)) == len(image)


@torch.no_grad()
def test_the_queries_are_not_distinct_unless_asked(draw_batch: Any) -> None:
    batch = draw_batch((128, 160, 2))
    model = build("deformable_detr_plus_plus", perturb=0.3).eval()
    assert count_distinct(groups_of(model, batch, training=False)[PRIMARY].reference)[0] < 10


@torch.no_grad()
def test_no_query_lies_on_padding_while_there_are_others(draw_batch: Any) -> None:
    batch = draw_batch((256, 256, 1), (96, 64, 1))
    model = build("deformable_detr_plus_plus", perturb=0.3, query_source=DISTINCT).eval()
    reference = groups_of(model, batch, training=False)[PRIMARY].reference
    assert reference is not None
    assert (reference < 1).any(-1).all()  # such proposals are (1, 1, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize("supervise", ["all", "selected", "ranked"])
def test_fewer_tokens_than_queries_give_fewer_queries(supervise: str, draw_batch: Any) -> None:
    batch = draw_batch((64, 64, 1), (64, 64, 1))
    model = build("deformable_detr_plus_plus", query_source={**DISTINCT, "num_queries": 200, "supervise": supervise})
    tokens = groups_of(model.eval(), batch, training=True)[PRIMARY].reference
    assert tokens is not None
    assert tokens.shape[1] < 200
    assert all(value.isfinite() for value in model.train()(batch).values())


@torch.no_grad()
def test_as_many_proposals_as_are_asked_for_are_compared(draw_batch: Any) -> None:
    batch = draw_batch((128, 160, 2))
    counts = {}
    for candidates in (None, 10, 12):
        source = {**DISTINCT, "candidates": candidates}
        model = build("deformable_detr_plus_plus", perturb=0.3, query_source=source).eval()
        (counts[candidates],) = count_distinct(groups_of(model, batch, training=False)[PRIMARY].reference)
    assert counts[10] <= counts[12] <= counts[None] == 10
    assert counts[10] < 10


def test_the_ranked_learn_and_not_the_distinct(draw_batch: Any) -> None:
    batch = draw_batch((128, 160, 2))
    seen = {}
    for supervise, distinct in (("selected", None), ("selected", 0.3), ("ranked", 0.3), ("ranked", None)):
        model = build("dino", perturb=0.3, query_source={"supervise": supervise, "distinct": distinct}).train()
        images = model.preprocess(batch)
        _, proposals = model.predict(model.backbone(images.tensor), tuple(images.tensor.shape[-2:]), images.image_sizes)
        seen[supervise, distinct] = proposals[PRIMARY].boxes
        assert proposals[PRIMARY].boxes.requires_grad
    torch.testing.assert_close(seen["ranked", 0.3], seen["selected", None])
    torch.testing.assert_close(seen["ranked", None], seen["selected", None])
    assert not torch.allclose(seen["selected", 0.3], seen["selected", None])


@pytest.mark.parametrize(("supervise", "warned"), [("selected", True), ("ranked", False), ("all", False)])
def test_one_to_many_of_distinct_proposals_alone_is_warned_of(
    supervise: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="hdetr_d2.modeling.composition"):
        build("dino", "proposals", query_source={**DISTINCT, "supervise": supervise})
    assert ("supervise=ranked" in caplog.text) == warned


def test_a_scheme_of_proposals_is_refused_where_there_are_none() -> None:
    config = config_of("deformable_detr")
    config.supervision = L(HybridProposals)()
    with pytest.raises(ValueError, match="HybridProposals is of the encoder's proposals, but LearnedQueries has none"):
        instantiate(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distinct": 1.5}, "distinct.*1.5"),
        ({"distinct": -0.1}, "distinct.*-0.1"),
        ({"candidates": 0}, "candidates.*0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("deformable_detr_plus_plus", query_source=arguments)

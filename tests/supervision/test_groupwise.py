"""Group DETR: groups of queries that each learn one-to-one, on any model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from hdetr_d2.modeling import DETR
from hdetr_d2.structures import Predictions
from hdetr_d2.supervision import PRIMARY, GroupwiseOneToOne, OneToOne
from tests.modeling.family import config_of

DrawBatch = Callable[..., list[dict[str, Any]]]
MODELS = ["conditional_detr", "deformable_detr", "dab_detr", "dn_deformable_detr", "dino"]
GROUPS = [PRIMARY, "group1", "group2"]


def build(name: str, **changes: Any) -> DETR:
    """A tiny model with three groups of queries, all parameters perturbed."""
    torch.manual_seed(0)
    config = config_of(name)
    config.supervision = L(GroupwiseOneToOne)(num_groups=3, num_queries=10, **changes)
    model: DETR = instantiate(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def predict(model: DETR, batch: list[dict[str, Any]]) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
    torch.manual_seed(1)
    images = model.preprocess(batch)
    features = model.backbone(images.tensor)
    return model.predict(features, tuple(images.tensor.shape[-2:]), images.image_sizes, model.targets(batch))


@pytest.mark.parametrize("name", ["conditional_detr", "deformable_detr", "dab_detr"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_group_predicts_as_if_it_were_alone(name: str, group: str, draw_batch: DrawBatch) -> None:
    model, batch = build(name), draw_batch((96, 128, 3), (128, 128, 1))
    together = predict(model, batch)[0][group]
    source = model.transformer.query_source
    for tables in (source.embed, getattr(source, "anchors", {})):
        if group in tables:
            tables[PRIMARY] = tables[group]
    source.specs = source.specs[:1]
    alone = predict(model, batch)[0][PRIMARY]
    torch.testing.assert_close(together.logits, alone.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-5, rtol=1e-5)
    assert together.logits.std() > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_the_mean_over_groups_of_one_to_one_losses(name: str, draw_batch: DrawBatch) -> None:
    model, batch = build(name), draw_batch((96, 128, 3), (128, 128, 0))
    predictions, proposals = predict(model, batch)
    targets = model.targets(batch)
    together = model.losses(predictions, proposals, targets)
    scheme = OneToOne()
    for group in GROUPS:
        alone = model.criterion({PRIMARY: predictions[group]}, {}, targets, supervision=scheme)
        ending = "" if group == PRIMARY else f"_{group}"
        for key, value in alone.items():
            assert together[key + ending].item() * 3 == pytest.approx(value.item(), rel=1e-5)
    # What is no group of its own counts as it does without groups.
    rest = {key: p for key, p in predictions.items() if key not in GROUPS}
    for key, value in model.criterion(rest, proposals, targets, supervision=scheme).items() if rest else ():
        assert together[key].item() == pytest.approx(value.item(), rel=1e-5)


def test_two_stage_groups_can_rank_proposals_by_heads_of_their_own(draw_batch: DrawBatch) -> None:
    model, batch = build("dino", queries="own"), draw_batch((96, 128, 3))
    predictions, proposals = predict(model, batch)
    assert list(proposals) == GROUPS
    assert set(GROUPS) < set(predictions)
    losses = model.losses(predictions, proposals, model.targets(batch))
    alone = model.criterion(
        {PRIMARY: predictions[PRIMARY]},
        {PRIMARY: proposals["group2"]},
        model.targets(batch),
        supervision=OneToOne(),
    )
    for kind in ("ce", "bbox", "giou"):
        assert losses[f"loss_{kind}_enc_group2"].item() * 3 == pytest.approx(alone[f"loss_{kind}_enc"].item(), rel=1e-5)


def test_a_target_gets_one_query_of_each_group() -> None:
    description = GroupwiseOneToOne(num_groups=11).describe(num_queries=300, num_layers=6)
    assert description.budget == 11
    assert {share.rule.normaliser for share in description.shares if share.layers} == {11.0}


@pytest.mark.parametrize("count", [1, 0, -1])
def test_fewer_than_two_groups_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="OneToOne is one group"):
        GroupwiseOneToOne(num_groups=count)

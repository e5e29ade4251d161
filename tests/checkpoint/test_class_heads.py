"""The one module that knows which tensors have rows of classes, over every model of the family."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from hdetr_d2.checkpoint.class_heads import FIRST_HEAD, ClassHeads, Scoring
from hdetr_d2.checkpoint.classes import ClassMatch, transfer_classes
from hdetr_d2.modeling import DETR
from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, config_of

MODELS = [*ONE_TO_ONE, *ONE_TO_MANY]
SOFTMAX = ["detr"]
BY_CLASS = ["dino", "rtdetr", "rtdetrv2_discrete", "deim_rtdetrv2", "dfine", "relation_detr"]
"""Models that rank proposals by their best class; others that have proposals rank them by channel 0."""
SOURCE = ["person", "traffic light", "dog", "cat", "tv"]
TARGET = ["Cat", "red cell", "traffic_light"]
ROWS = [1, 2, 4, 6, 7]
ENCODER = "transformer.heads.encoder_class_embed.weight"
LABELS = "transformer.denoising.label_embed.weight"


def build(name: str, num_classes: int = 5, **changes: Any) -> DETR:
    config = config_of(name)
    config.num_classes = num_classes
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    model: DETR = instantiate(config)
    return model


@cache
def shapes(name: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in build(name, num_classes).state_dict().items()}


def numbered(model: DETR) -> dict[str, Tensor]:
    """A model's state, every row of every tensor with a value of its own."""
    state = model.state_dict()
    return {
        key: torch.arange(value.numel(), dtype=torch.float32).view(value.shape) + 1e5 * i
        for i, (key, value) in enumerate(state.items())
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_tensors_with_rows_of_classes_are_those_whose_shape_follows_the_number_of_classes(name: str) -> None:
    five, seven = shapes(name, 5), shapes(name, 7)
    model = build(name)
    heads = ClassHeads.of(model.state_dict(), Scoring.of_model(model))
    assert set(heads.keys) == {key for key in five if five[key] != seven[key]}
    assert heads.num_classes == 5


@pytest.mark.parametrize("name", MODELS)
def test_the_model_says_how_it_reads_its_outputs_and_its_names_agree(name: str) -> None:
    model = build(name)
    state = model.state_dict()
    scoring = Scoring.of_model(model)
    assert scoring == Scoring(no_object=name in SOFTMAX, objectness=ENCODER in state and name not in BY_CLASS)
    assert Scoring.of_names(state) == scoring
    assert Scoring.of_checkpoint({"class_heads": scoring.record()}) == scoring


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in MODELS if ENCODER in shapes(name, 5)])
def test_proposals_are_ranked_by_row_0_alone_where_it_is_an_objectness(
    name: str, draw_batch: Callable[..., list[dict[str, Any]]]
) -> None:
    """Against what the model does when all other rows of the encoder's head are drawn anew."""
    torch.manual_seed(3)
    model = build(name).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    batch = draw_batch((64, 96, 1))
    before = model(batch)[0]["instances"].pred_boxes.tensor
    model.transformer.heads.encoder_class_embed.weight[1:] = torch.randn(4, 32)
    model.transformer.heads.encoder_class_embed.bias[1:] = 5.0
    after = model(batch)[0]["instances"].pred_boxes.tensor
    assert torch.equal(before, after) == Scoring.of_model(model).objectness


@pytest.mark.parametrize("name", MODELS)
def test_rows_go_along_by_name_in_every_model_and_the_result_fits_it(name: str) -> None:
    model = build(name)
    state, scoring = numbered(model), Scoring.of_model(model)
    new, report = transfer_classes(state, ClassMatch.of(SOURCE, TARGET), scoring=scoring)
    assert {key: tuple(value.shape) for key, value in new.items()} == shapes(name, 3)
    heads = ClassHeads.of(state, scoring)
    assert {key for key, _, _ in report.resized} == set(heads.keys)
    for key in heads.keys:
        first_class = 1 if scoring.objectness and key in heads.proposal_heads else 0
        kept = [(0, 3), (2, 1)][first_class:]
        assert all(torch.equal(new[key][i], state[key][row]) for i, row in kept), key
        assert torch.equal(new[key][3:], state[key][5:]), key
        if first_class:
            assert torch.equal(new[key][0], state[key][0]), key
    assert [key for key in state if key not in heads.keys and new[key] is not state[key]] == []


@pytest.mark.parametrize("name", MODELS)
def test_widened_rows_fit_a_model_of_that_many_classes_and_come_back(name: str) -> None:
    model = build(name)
    state, scoring = numbered(model), Scoring.of_model(model)
    heads = ClassHeads.of(state, scoring)
    wide = heads.widen(state, ROWS, 9)
    assert {key: tuple(value.shape) for key, value in wide.items()} == shapes(name, 9)
    back = ClassHeads.of(wide, scoring).select(wide, ROWS)
    assert [key for key in state if not torch.equal(back[key], state[key])] == []
    # rows without a class score nothing
    for key in (key for key in heads.heads if key.endswith("bias")):
        assert (wide[key][[0, 3, 5, 8]].sigmoid() < 1e-5).all()
        assert torch.equal(wide[key][9:], state[key][5:])
    if scoring.objectness:
        assert torch.equal(wide[ENCODER][0], state[ENCODER][0])
    elif ENCODER in state:
        assert torch.equal(wide[ENCODER][ROWS], state[ENCODER])


@torch.no_grad()
@pytest.mark.parametrize("name", ["detr", "dn_detr", "dino", "mr_detr", "rtdetr", "h_deformable_detr"])
def test_a_widened_model_detects_what_it_did_under_the_other_numbers(
    name: str, draw_batch: Callable[..., list[dict[str, Any]]]
) -> None:
    torch.manual_seed(3)
    model = build(name)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    wide = build(name, 9)
    scoring = Scoring.of_model(model)
    wide.load_state_dict(ClassHeads.of(model.state_dict(), scoring).widen(model.state_dict(), ROWS, 9))
    batch = draw_batch((64, 96, 1))
    ours, theirs = (m.eval()(batch)[0]["instances"] for m in (model, wide))
    assert torch.equal(torch.tensor(ROWS)[ours.pred_classes], theirs.pred_classes)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)


@pytest.mark.parametrize(
    ("name", "changes", "scoring"),
    [
        ("conditional_detr", {"score": "softmax"}, Scoring(no_object=True)),
        ("detr", {"score": "sigmoid"}, Scoring(no_object=False)),
        ("deformable_detr_plus_plus", {"transformer.query_source.rank_by": "best"}, Scoring(objectness=False)),
    ],
)
def test_a_model_that_is_not_read_as_its_recipe_says_is_asked_itself(
    name: str, changes: dict[str, Any], scoring: Scoring
) -> None:
    config = config_of(name)
    if "score" in changes:
        softmax = changes["score"] == "softmax"
        other = config_of("detr" if softmax else "deformable_detr")
        config.criterion, config.supervision = other.criterion, other.supervision
        config.transformer.heads.update(score=changes["score"])
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    model = instantiate(config)
    assert Scoring.of_model(model) == scoring
    assert ClassHeads.of(model.state_dict(), scoring).num_classes == 5


def test_what_losses_have_counted_of_the_former_classes_starts_anew() -> None:
    state = numbered(build("deformable_detr")) | {"criterion.classification.counts": torch.arange(5)}
    new, report = transfer_classes(state, ClassMatch.of(SOURCE, TARGET))
    assert report.dropped == ("criterion.classification.counts",)
    assert "criterion.classification.counts" not in new
    assert "criterion.classification.counts" in report.table()


@pytest.mark.parametrize(
    ("key", "rows", "message"),
    [
        (FIRST_HEAD, 6, "rows"),
        (ENCODER, 3, r"encoder_class_embed.weight has 3 rows, .* expected 1 or 5"),
        (LABELS, 4, "label_embed.weight has 4 rows, too few for the 5 classes"),
    ],
)
def test_rows_that_contradict_each_other_are_refused_by_name(key: str, rows: int, message: str) -> None:
    state = build("dino").state_dict()
    state[key] = torch.zeros(rows, 32)
    with pytest.raises(ValueError, match=message):
        ClassHeads.of(state, Scoring())


@pytest.mark.parametrize(("rows", "width"), [([1, 2, 3], 9), ([1, 2, 4, 6, 9], 9), ([-1, 2, 4, 6, 7], 9), ([1] * 5, 9)])
def test_rows_that_do_not_fit_are_refused(rows: list[int], width: int) -> None:
    state = build("deformable_detr").state_dict()
    with pytest.raises(ValueError, match="for the 5 classes"):
        ClassHeads.of(state, Scoring()).widen(state, rows, width)


def test_a_head_of_objectness_alone_stays_as_it_is() -> None:
    state = build("h_deformable_detr", **{"transformer.heads.encoder_classes": 1}).state_dict()
    heads = ClassHeads.of(state, Scoring(objectness=True))
    assert heads.widen(state, ROWS, 9)[ENCODER] is state[ENCODER]


def test_a_head_that_ranks_proposals_and_tells_classes_is_neither_selected_nor_widened() -> None:
    changes = {
        "transformer.decoder.refine": False,
        "transformer.heads.shared": True,
        "transformer.heads.encoder": "shared",
    }
    model = build("deformable_detr_two_stage", **changes)
    heads = ClassHeads.of(model.state_dict(), Scoring.of_model(model))
    with pytest.raises(ValueError, match="encoder shares"):
        heads.widen(model.state_dict(), ROWS, 9)
    with pytest.raises(ValueError, match="encoder shares"):
        heads.select(model.state_dict(), [1, 2])
